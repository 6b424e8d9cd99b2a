"""PgBouncer in front of the PostgreSQL of its own node.

It gives many clients few connections (transaction mode, prepared statements kept), and answers on the node's address,
for the proxies. It holds no password: it asks the database for the SCRAM verifier of who logs in (by a function that
``hostkit.kea_pooler`` makes) and logs in to PostgreSQL with what the client proved. It does not look who leads: that
is for the proxies to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components.kea_database import OWN_SCHEMA, POOLER_FUNCTION
from components.patroni_settings import POOLER
from keadb import ciphers, naming, ports
from keadb.bundle import APPLIER, Bundle, File, Packages, Probe, TlsUse, Unit
from keadb.clients import DATABASE
from keadb.logins import KEA_OWNER, KEA_READ, LETTERS
from keadb.platforms import platform
from keadb.site_rules import POOLED_LOGINS, UNPOOLED_CONNECTIONS
from keadb.templating import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.host import Host as HostComponent
    from components.kea_database import KeaDatabase
    from keadb.site import Host, Site

UNIT = "pgbouncer.service"
USER = "pgbouncer"
CONFIG = "/etc/pgbouncer/pgbouncer.ini"
READ_AT_START = "/etc/pgbouncer/read-at-start.ini"
RULES = "/etc/pgbouncer/rules.conf"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/keadb.conf"
SOCKET_DIR = "/run/pgbouncer"
TLS = {part: f"/etc/pgbouncer/tls/{part}" for part in ("pooler.key", "pooler.crt", "ca.crt")}
LARGEST_POOL = 20
"""Connections for a login, unless the site file says otherwise: a reservation is read in well under a millisecond."""


def pool_size(site: Site) -> int:
    """Return how many connections to PostgreSQL one login gets at most."""
    room = (site.postgresql.max_connections - UNPOOLED_CONNECTIONS) // POOLED_LOGINS
    return site.pooler.pool_size or min(LARGEST_POOL, room)


def pooler_bundle(site: Site, host: Host) -> Bundle:
    """Return PgBouncer of one database host."""
    on = platform(site.platform, postgresql=site.postgresql.version)
    packages = on.packages["pooler"]
    tls = TlsUse(key=TLS["pooler.key"], cert=TLS["pooler.crt"], ca=TLS["ca.crt"], owner=USER, group=USER)
    config = render(
        "pgbouncer/pgbouncer.ini.j2",
        read_at_start=READ_AT_START,
        rules=RULES,
        database=DATABASE,
        postgresql_port=ports.POSTGRESQL,
        auth_user=POOLER,
        schema=OWN_SCHEMA,
        function=POOLER_FUNCTION,
        pool_size=pool_size(site),
        max_clients=site.pooler.max_clients,
        tls=tls,
        ciphers=ciphers.OPENSSL,
    )
    start = render("pgbouncer/read-at-start.ini.j2", address=host.address, port=ports.POOLER, socket_dir=SOCKET_DIR)
    rules = render(
        "pgbouncer/rules.conf.j2",
        database=DATABASE,
        logins=[pair.login(letter) for pair in (KEA_OWNER, KEA_READ) for letter in LETTERS],
        proxies=[other.address for other in site.database_hosts],
    )
    return Bundle(
        name="pooler",
        host=host.name,
        packages=Packages(install=packages, hold=packages, mask=on.mask["pooler"]),
        files={
            "/etc/sysusers.d/keadb-pgbouncer.conf": File(content=render("pgbouncer/sysusers.conf.j2")),
            CONFIG: File(content=config, group=USER, mode="0640"),
            READ_AT_START: File(content=start, group=USER, mode="0640"),
            RULES: File(content=rules, group=USER, mode="0640"),
            DROP_IN: File(content=render("pgbouncer/pgbouncer.service.conf.j2")),
        },
        tls={"pooler": tls},
        units={UNIT: Unit(restart_on=(DROP_IN, READ_AT_START), reload_on=(CONFIG, RULES, *TLS.values()))},
        probes=(
            Probe(
                name="the pooler answers", run=(APPLIER, "way-probe", "answers", str(host.address), str(ports.POOLER))
            ),
        ),
    )


def pooler_bundles(site: Site) -> dict[str, list[Bundle]]:
    """Return the bundles of all poolers by host."""
    return {host.name: [pooler_bundle(site, host)] for host in site.database_hosts}


class Pooler(pulumi.ComponentResource):
    """A pooler on every database host: one command each, one host after the other."""

    ready: list[pulumi.Resource]
    """Done when every pooler answers."""

    def __init__(
        self,
        site: Site,
        hosts: Mapping[str, HostComponent],
        kea: KeaDatabase,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Register the poolers under the site's name; ``kea`` makes what they ask the database."""
        super().__init__(naming.type_token("components", "Pooler"), naming.resource(site.name, "pooler"), {}, opts)
        self.ready = []
        for host in site.database_hosts:
            bundle = pooler_bundle(site, host)
            # Each waits for the one before: a restart of all at once would leave clients no pooler.
            self.ready.append(hosts[host.name].apply(bundle, depends_on=[*kea.roles, *self.ready], parent=self))
        self.register_outputs({"port": ports.POOLER})
