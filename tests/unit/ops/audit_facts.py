"""Facts of hosts that are as they should be, as ``hostkit.audit`` tells them (seen in the lab), for a sample site."""

from __future__ import annotations

import ipaddress
from typing import Any

from components.patroni_settings import access_rules
from keadb.bundle import APPLIER
from keadb.deploy_rights import applier_words
from keadb.site import Host, Site
from ops.audit_machine import CAPABILITIES, USERS, declared_sockets

SETTINGS = {
    "allow_system_table_mods": "off",
    "authentication_timeout": "20",
    "backslash_quote": "safe_encoding",
    "data_checksums": "on",
    "debug_pretty_print": "on",
    "debug_print_parse": "off",
    "debug_print_plan": "off",
    "debug_print_rewritten": "off",
    "dynamic_library_path": "$libdir",
    "fsync": "on",
    "full_page_writes": "on",
    "idle_in_transaction_session_timeout": "300000",
    "ignore_checksum_failure": "off",
    "ignore_invalid_pages": "off",
    "ignore_system_indexes": "off",
    "jit": "off",
    "jit_debugging_support": "off",
    "jit_profiling_support": "off",
    "lo_compat_privileges": "off",
    "local_preload_libraries": "",
    "log_checkpoints": "on",
    "log_connections": "off",
    "log_destination": "stderr",
    "log_disconnections": "on",
    "log_hostname": "off",
    "log_line_prefix": "%m [%p] %q%u@%d/%a %h ",
    "log_lock_waits": "on",
    "log_min_error_statement": "error",
    "log_min_messages": "warning",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_replication_commands": "on",
    "log_statement": "ddl",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "password_encryption": "scram-sha-256",
    "post_auth_delay": "0",
    "row_security": "on",
    "session_preload_libraries": "",
    "session_replication_role": "origin",
    "shared_preload_libraries": "",
    "ssl": "on",
    "ssl_ciphers": "ECDHE+AESGCM:ECDHE+CHACHA20",
    "ssl_min_protocol_version": "TLSv1.2",
    "standard_conforming_strings": "on",
    "synchronous_commit": "on",
    "unix_socket_permissions": "0700",
    "wal_log_hints": "on",
    "zero_damaged_pages": "off",
}
PACKAGES = {
    "etcd-client": "3.5.16-4",
    "etcd-server": "3.5.16-4",
    "haproxy": "3.0.11-1+deb13u5",
    "keepalived": "1:2.3.3-1",
    "patroni": "4.0.7-3~deb13u1",
    "pgbouncer": "1.24.1-1+deb13u2",
    "postgresql-15": "15.20-0+deb12u1",
    "postgresql-client-15": "15.20-0+deb12u1",
    "python3-etcd": "0.4.5-6",
    "python3-psycopg2": "2.9.10-1+b1",
}


def facts(site: Site, host: Host) -> dict[str, Any]:
    """Return what a good host says."""
    database, etcd = "database" in host.roles, "etcd" in host.roles
    refused = dict.fromkeys(("without_certificate", "cleartext"), "refused")
    return {
        "format": 1,
        "host": host.name,
        "files": _files(database=database),
        "accounts": _accounts(site, host),
        "ssh": {
            "authenticationmethods": "publickey",
            "disableforwarding": "yes",
            **dict.fromkeys(
                (
                    *("passwordauthentication", "kbdinteractiveauthentication", "permitemptypasswords"),
                    *("allowtcpforwarding", "allowstreamlocalforwarding", "allowagentforwarding"),
                    *("permittunnel", "x11forwarding", "permituserenvironment"),
                ),
                "no",
            ),
        },
        "upkeep": {
            "reboots": "false",
            "policy": 101,
            "needrestart": True,
            "not_held": [],
            "suid_dumpable": "0",
            "journal_persistent": True,
        },
        "clock": {"synchronised": True},
        "firewall": {
            "policies": dict.fromkeys(("input", "forward", "output"), "drop"),
            "differs": [],
            "unconfirmed": False,
            "at_boot": "enabled",
        },
        "units": _units(host),
        "sockets": [
            {"protocol": "tcp", "program": program, "address": address, "port": port}
            for program, address, port in sorted(declared_sockets(site, host))
        ]
        + [{"protocol": "tcp", "program": "sshd", "address": "::", "port": 22}],
        "packages": dict(PACKAGES),
        "database": _database(site, host) if database else None,
        "patroni": {**refused, "without_password": "refused"} if database else None,
        "etcd": {**refused, "peer_without_certificate": "refused", "without_login": "refused"} if etcd else None,
        "pooler": _pooler(host) if database else None,
        "proxy": {
            "sockets": {"/run/keadb-haproxy/admin.sock": {"mode": "0600", "owner": "haproxy", "group": "haproxy"}},
            "levels": ["user"],
            "verify": "required",
            "unverified": 0,
            "pages": [],
            "oldest_tls": "TLSv1.2",
        }
        if database
        else None,
        "address": {
            "script_security": True,
            "script_user": "keepalived_script",
            "checks_source": len(site.database_hosts) > 1,
            "peers": {str(other.address): True for other in site.database_hosts if other != host},
        }
        if database
        else None,
    }


def _state(mode: str, owner: str = "root", group: str = "root") -> dict[str, Any]:
    return {"mode": mode, "owner": owner, "group": group, "link": False}


def _files(*, database: bool) -> dict[str, Any]:
    data = {"/var/lib/postgresql/15/kea": _state("0700", "postgres", "postgres")} if database else {}
    config = {"/etc/patroni/config.yml": _state("0640", "root", "postgres")} if database else {}
    return {
        "private": {
            "/etc/etcd/tls/server.key": _state("0600", "etcd", "etcd"),
            "/var/lib/keadb/secrets.json": _state("0600"),
        },
        "folders": {"/var/lib/keadb/tls": _state("0700"), "/var/log/journal": _state("2755"), **data},
        "configs": {
            "/etc/haproxy/haproxy.cfg": _state("0644"),
            "/usr/lib/keadb/keadb-apply": _state("0755"),
            **config,
        },
        "ssh": {"/home/keadb/.ssh/authorized_keys": _state("0600", "keadb", "keadb")},
        "history": {"/var/lib/postgresql/.psql_history": "link to /dev/null", "/root/.psql_history": "none"},
    }


def _accounts(site: Site, host: Host) -> dict[str, Any]:
    def user(shell: str, *groups: str) -> dict[str, Any]:
        return {"shell": shell, "password": "locked", "groups": list(groups)}

    return {
        "users": {
            host.ssh_user: user("/bin/bash", host.ssh_user),
            "postgres": user("/bin/bash", "postgres", "ssl-cert"),
            "etcd": user("/usr/sbin/nologin", "etcd"),
        },
        "sudo": [f"(root) NOPASSWD: {APPLIER} {words or chr(34) * 2}" for words in applier_words(site, host)],
        "root_like": [],
    }


def _units(host: Host) -> dict[str, Any]:
    names = {"database": ("patroni", "pgbouncer", "haproxy", "keepalived"), "etcd": ("keadb-etcd",)}
    found = {
        f"{name}.service": {
            "active": "active",
            "exposure": 1.3,
            "processes": [
                {
                    "name": name,
                    "user": USERS[f"{name}.service"],
                    "no_new_privileges": True,
                    "filtered": True,
                    "capabilities": f"{CAPABILITIES.get(f'{name}.service', 0):x}",
                    "bounding": f"{CAPABILITIES.get(f'{name}.service', 0):x}",
                    "umask": "0077",
                    "core": "none",
                    "password_in_environment": False,
                }
            ],
        }
        for role, of_role in names.items()
        if role in host.roles
        for name in of_role
    }
    journal = {"active": "active", "exposure": 4.9, "processes": [{"name": "journald", "user": "root"}]}
    return {**found, "systemd-journald.service": journal}


def rules(site: Site) -> list[dict[str, Any]]:
    """Return the declared rules as PostgreSQL shows its file's."""
    return [rule(" ".join(line.split())) for line in access_rules(site)]


def rule(line: str) -> dict[str, Any]:
    """Return one rule as PostgreSQL shows it."""
    words = line.split()
    kind, database, user, *address, method = words
    network = ipaddress.ip_network(address[0]) if address and address[0] != "all" else None
    return {
        "type": kind,
        "database": database.split(","),
        "user": user.split(","),
        "address": str(network.network_address) if network else (address[0] if address else None),
        "netmask": str(network.netmask) if network else None,
        "method": method,
        "options": None,
        "error": None,
    }


def _role(*, login: bool = False, kept_as: str = "none", of: str = "", **more: bool) -> dict[str, Any]:
    attributes = ("superuser", "createdb", "createrole", "replication", "bypassrls")
    plain = dict.fromkeys(attributes, False)
    return {**plain, **more, "login": login, "password": kept_as, "member_of": [of] if of else []}


def _database(site: Site, host: Host) -> dict[str, Any]:
    every = dict.fromkeys(("superuser", "createdb", "createrole", "replication", "bypassrls"), True)
    return {
        "version": 150020,
        "in_recovery": False,
        "settings": {**SETTINGS, "listen_addresses": f"{host.address},127.0.0.1"},
        "pending_restart": [],
        "hba": rules(site),
        "databases": ["kea", "postgres", "template0", "template1"],
        "roles": {
            "postgres": _role(login=True) | every,
            "replicator": _role(login=True, replication=True),
            "rewinder": _role(login=True),
            "pooler": _role(login=True),
            "kea_owner": _role(),
            "kea_owner_a": _role(login=True, kept_as="scram", of="kea_owner"),
            "kea_owner_b": _role(of="kea_owner"),
            "kea_read": _role(),
            "kea_read_a": _role(login=True, kept_as="scram", of="kea_read"),
            "kea_read_b": _role(of="kea_read"),
        },
        "role_settings": ["role"],
        "clear_sessions": 0,
        "replicas": [{"user": "replicator", "ssl": True}],
        "primary": {"user": "replicator", "sslmode": "verify-full", "password": "none"},
        "database_acl": ["kea_read CONNECT", "pooler CONNECT"],
        "schema_acl": ["public kea_read USAGE", "kea_ext pooler USAGE"],
        "public_rights": [],
        "default_rights": [],
        "definers": [{"name": "kea_ext.pooler_login", "search_path": True, "public": False}],
        "extensions": ["plpgsql"],
        "untrusted_languages": [],
        "outside": [],
        "owners": ["public kea_owner"],
    }


def _pooler(host: Host) -> dict[str, Any]:
    return {
        "auth_type": "hba",
        "client_tls_sslmode": "require",
        "client_tls_protocols": "tlsv1.2,tlsv1.3",
        "server_tls_sslmode": "verify-full",
        "server_tls_protocols": "tlsv1.2,tlsv1.3",
        "admin_users": "",
        "stats_users": "",
        "listen_addr": str(host.address),
        "unix_socket_mode": "0700",
        "auth_query": "set",
        "auth_file": "",
        "rules": [["hostssl", "scram-sha-256"]],
    }
