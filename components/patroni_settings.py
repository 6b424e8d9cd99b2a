"""Patroni's and PostgreSQL's settings of a site, as plain data.

Timings are the measured "fast" set (docs/decisions, the record on Patroni's parameters). Nothing here is a secret
and nothing depends on the machine that renders it. Restart order is not decided here: the host side does that.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from keadb import ciphers, memory, ports
from keadb.logins import ETCD_PATRONI

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keadb.site import Host, Site

POSTGRESQL_PORT = ports.POSTGRESQL
REST_PORT = ports.PATRONI_REST
ETCD_CLIENT_PORT = ports.ETCD_CLIENT
NAMESPACE = "/service/"
SOCKET_DIR = "/var/run/postgresql"

TLS_DIR = "/etc/patroni/tls"
TLS_CA = f"{TLS_DIR}/ca.crt"

REPLICATOR = "replicator"
REWINDER = "rewinder"
POOLER = "pooler"
"""The role (and certificate) with which a node's PgBouncer asks for the verifier of a login."""

MIB = 1024 * 1024


def tls_paths(name: str) -> dict[str, str]:
    """Return key, certificate and CA paths of one of the database host's certificates."""
    return {"key": f"{TLS_DIR}/{name}.key", "cert": f"{TLS_DIR}/{name}.crt", "ca": TLS_CA}


def data_dir(site: Site) -> str:
    """Return the cluster's own data directory, beside the distribution's (whose clusters are not made)."""
    return f"/var/lib/postgresql/{site.postgresql.version}/kea"


def waits_for_standby(site: Site) -> bool:
    """Say whether commits wait for a second database host: alone, there is nobody to wait for."""
    return site.topology == "ha" and site.patroni.synchronous_mode


def postgresql_parameters(site: Site) -> dict[str, Any]:
    """Return the cluster-wide parameters; the site's own ones win. Reserved names are refused by the site model."""
    server = tls_paths("postgres")
    return {
        "unix_socket_directories": SOCKET_DIR,
        # Nobody but the superuser may log in by it (pg_hba), and only Patroni and root need to.
        "unix_socket_permissions": "0700",
        # TLS only (pg_hba has no plain `host` rule but the final reject); 1.2 is the floor of every client here.
        "ssl": "on",
        "ssl_cert_file": server["cert"],
        "ssl_key_file": server["key"],
        "ssl_ca_file": server["ca"],
        "ssl_min_protocol_version": ciphers.MINIMUM,
        "ssl_ciphers": ciphers.OPENSSL,
        "password_encryption": "scram-sha-256",
        "max_connections": site.postgresql.max_connections,
        # The smallest database host decides: either may lead.
        **memory.settings(*memory.smallest(site.database_hosts), site.postgresql),
        # pg_rewind needs hint bits in the WAL (or checksums, which initdb sets as well).
        "wal_log_hints": "on",
        # A standby that was away comes back from here; a slot may hold more, but never fill the disk.
        "wal_keep_size": "512MB",
        "max_slot_wal_keep_size": "4GB",
        # A dead standby blocks commits until this is over (measured: 7 s; 20 s with the default of 60 s).
        "wal_sender_timeout": "5s",
        "wal_receiver_timeout": "5s",
        # A standby that lost its leader asks again after a second (default 5 s): felt at birth and in every rejoin.
        "wal_retrieve_retry_interval": "1s",
        # After a crash PostgreSQL makes sure of every file before it recovers: in one call, not one for each of them.
        "recovery_init_sync_method": "syncfs",
        "tcp_keepalives_idle": 5,
        "tcp_keepalives_interval": 2,
        "tcp_keepalives_count": 3,
        # A login that is not finished by then only holds a connection.
        "authentication_timeout": "20s",
        # A transaction that was left open holds back vacuum and keeps a connection of a pool. Sessions may be idle:
        # poolers' and Kea's are, for days.
        "idle_in_transaction_session_timeout": "5min",
        # No memory that is written and executed (the units forbid it); a reservation is looked up in microseconds.
        "jit": "off",
        # Changes of roles and schema, not data. Our own statements that carry verifiers are never logged.
        "log_statement": "ddl",
        "log_min_duration_statement": "1s",
        # Values of parameters are data (and passwords, where somebody is careless).
        "log_parameter_max_length": 0,
        "log_parameter_max_length_on_error": 0,
        # Who was there, from where and for how long. Not log_connections: it logs whatever knocks, and each proxy
        # knocks several times a second.
        "log_disconnections": "on",
        "log_replication_commands": "on",
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_line_prefix": "%m [%p] %q%u@%d/%a %h ",
        "log_timezone": "UTC",
        "timezone": "UTC",
        **site.postgresql.parameters,
    }


def dynamic_config(site: Site) -> dict[str, Any]:
    """Return what Patroni keeps in etcd under ``/config``: one resource for the whole cluster."""
    patroni = site.patroni
    return {
        "ttl": patroni.ttl,
        "loop_wait": patroni.loop_wait,
        "retry_timeout": patroni.retry_timeout,
        "primary_start_timeout": patroni.primary_start_timeout,
        "maximum_lag_on_failover": patroni.maximum_lag_on_failover_mb * MIB,
        "synchronous_mode": waits_for_standby(site),
        "synchronous_mode_strict": False,
        "failsafe_mode": True,
        "postgresql": {
            "use_slots": True,
            "use_pg_rewind": True,
            # A rewind that fails is for a person to look at: this may be the last copy.
            "remove_data_directory_on_rewind_failure": False,
            "remove_data_directory_on_diverged_timelines": False,
            "parameters": postgresql_parameters(site),
        },
    }


def failover_priority(site: Site, host: Host) -> int:
    """Return 100 for the first database host, 10 less for each further one: preferred when all else is equal."""
    return 100 - 10 * site.database_hosts.index(host)


def rest_sources(site: Site) -> list[str]:
    """Return who may change anything over Patroni's REST API (reading needs no right)."""
    return _unique(str(host.address) for host in (*site.database_hosts, site.control_host))


def access_rules(site: Site) -> list[str]:
    """Return pg_hba.conf: certificates between the nodes, SCRAM over TLS for named logins from named addresses.

    The superuser has no password and comes in by the local socket only. Roles with a plus sign are groups: the
    logins of a pair are members.

    Who comes by the virtual address is seen here as loopback (the node's own pooler) or as a node (a proxy that found
    no pooler): the proxies decide which addresses may come that way, so Kea's servers do not stand here.
    """
    nodes = [IPv4Network(host.address) for host in site.database_hosts]
    control = IPv4Network(site.control_host.address)
    loopback = ["127.0.0.1/32", "::1/128"]  # Patroni asks its own node for its timeline this way
    logins = [loopback[0], *_unique(str(n) for n in (*nodes, control, *site.network.clients))]
    rules = [
        ("local", "all", "postgres", "", "peer"),
        ("local", "all", "all", "", "reject"),
        *(("hostssl", "replication", REPLICATOR, a, "cert") for a in (*loopback, *map(str, nodes))),
        *(("hostssl", "postgres", REWINDER, str(n), "cert") for n in nodes),
        ("hostssl", "kea", POOLER, loopback[0], "cert"),
        *(("hostssl", "kea", "+kea_owner", a, "scram-sha-256") for a in logins),
        *(("hostssl", "kea", "+kea_read", a, "scram-sha-256") for a in logins),
        ("host", "all", "all", "all", "reject"),
    ]
    widths = (8, 12, 11, 19)
    return ["".join(f"{part:<{w}}" for part, w in zip(r, widths, strict=False)) + r[-1] for r in rules]


def read_at_start(site: Site, host: Host) -> Mapping[str, str]:
    """Return the settings of config.yml that Patroni reads only when it starts: a change of one needs a restart.

    etcd's member list is not among them: Patroni asks etcd for it again and again. Nor is the login at etcd: a reload
    is enough for the next time that Patroni logs in (read in 4.0.7).
    """
    return {
        "scope": site.cluster,
        "name": host.name,
        "namespace": NAMESPACE,
        "data_dir": data_dir(site),
    }


def etcd_login(site: Site) -> dict[str, str]:
    """Return Patroni's login at etcd: its user, the name of its secret, and the user that is not in use."""
    active, spare = ETCD_PATRONI.active(site.logins), ETCD_PATRONI.spare(site.logins)
    return {
        "user": ETCD_PATRONI.login(active),
        "secret": ETCD_PATRONI.secret(active),
        "spare": ETCD_PATRONI.login(spare),
    }


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
