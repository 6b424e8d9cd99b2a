"""Kea's database: roles and database on the nodes, schema and rights from the control host.

Two bundles, because two different parties may do the work. Roles and the database itself need the superuser, who
only logs in on the leader's own socket: ``kea-roles`` runs on every database host and works where the leader is.
The schema needs ``kea-admin`` of the Kea servers' version, which is not on the database hosts: ``kea-database``
runs on the control host and reaches the leader over TLS as the owner's login.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pulumi

from components.patroni_settings import POOLER
from keadb import naming
from keadb.bundle import APPLIER, Bundle, File, Packages, Step, plain_json
from keadb.clients import DATABASE, PORT
from keadb.logins import KEA_OWNER, KEA_READ, LETTERS
from keadb.platforms import Platform, platform
from keadb.versions import KEA_SCHEMA

if TYPE_CHECKING:
    from components.host import Host
    from components.postgres_cluster import PostgresCluster
    from keadb.site import Host as HostSpec
    from keadb.site import Site

ROLES_PLAN = "/etc/keadb/cluster/kea-roles.json"
DATABASE_PLAN = "/etc/keadb/cluster/kea-database.json"
CA_FILE = "/etc/keadb/tls/ca.crt"
_PAIRS = (KEA_OWNER, KEA_READ)
OWNER, READER = KEA_OWNER.user, KEA_READ.user
OWN_SCHEMA = "kea_ext"
"""Our own objects in Kea's database, beside Kea's schema ``public``."""
POOLER_FUNCTION = "pooler_login"
"""Gives a pooler the verifier of a login of Kea's roles."""
READ_TABLES = ("schema_version", "hosts", "dhcp4_options", "dhcp6_options", "ipv6_reservations")
"""What a serving Kea reads, found by granting one by one until it worked on 2.2, 2.6 and 3.0."""

LEADER_SECONDS = 120
"""How long both steps wait for a leader: a birth of the cluster ends before, a failover takes a fraction."""
SCHEMA_SECONDS = 900
"""Limit of the whole ``kea-database`` step; an upgrade over all versions takes seconds on an empty database."""


def kea_roles_bundle(site: Site, host: HostSpec) -> Bundle:
    """Return what makes roles, logins and the database, for one database host."""
    plan = {
        "format": 1,
        "psql": f"{_platform(site).pg_bindir}/psql",
        "superuser": "postgres",
        "database": DATABASE,
        "owner": OWNER,
        "roles": [OWNER, READER],
        "connect": [READER],
        "logins": _logins(site),
        "pooler": {"role": POOLER, "schema": OWN_SCHEMA, "function": POOLER_FUNCTION, "of": [OWNER, READER]},
        "timeout": LEADER_SECONDS,
    }
    return Bundle(
        name="kea-roles",
        host=host.name,
        files={ROLES_PLAN: File(content=plain_json(plan))},
        steps=(Step(name="kea roles", run=(APPLIER, "kea-roles"), timeout=LEADER_SECONDS + 60),),
        uses_secrets=tuple(pair.secret(letter) for pair in _PAIRS for letter in pair.open(site.logins)),
    )


def kea_database_bundle(site: Site, host: HostSpec, staged: Mapping[str, str]) -> Bundle:
    """Return what makes Kea's schema and the reader's rights, for the control host.

    ``staged`` are the digests of the roles' bundles: whatever they change is proved again by a login.
    """
    plan = {
        "format": 1,
        "kea": site.kea.version,
        "kea_admin": _platform(site).kea_admin,
        "psql": f"{_platform(site).pg_bindir}/psql",
        "endpoints": [{"host": site.fqdn(h), "address": str(h.address)} for h in site.database_hosts],
        "port": PORT,
        "database": DATABASE,
        "ca": CA_FILE,
        "schema": KEA_SCHEMA[site.kea.version],
        "accept_upgrade": "schema_upgrade" in site.accept,
        "reader": READER,
        "tables": list(READ_TABLES),
        "logins": {
            pair.key: {"name": pair.login(pair.active(site.logins)), "secret": pair.secret(pair.active(site.logins))}
            for pair in _PAIRS
        },
        "timeout": LEADER_SECONDS,
    }
    return Bundle(
        name="kea-database",
        host=host.name,
        packages=Packages(
            install=_platform(site).install("kea_admin", site.packages.versions),
            hold=_platform(site).packages["kea_admin"],
        ),
        files={DATABASE_PLAN: File(content=plain_json(plan))},
        steps=(Step(name="kea schema", run=(APPLIER, "kea-database"), timeout=SCHEMA_SECONDS),),
        uses_secrets=tuple(pair.secret(pair.active(site.logins)) for pair in _PAIRS),
        inputs=dict(staged),
    )


def kea_bundles(site: Site) -> dict[str, list[Bundle]]:
    """Return all bundles of Kea's database by host, in the order in which a host gets them."""
    bundles = {host.name: [kea_roles_bundle(site, host)] for host in site.database_hosts}
    staged = {f"{b.host}/{b.name}": b.digest() for of_host in bundles.values() for b in of_host}
    schema = kea_database_bundle(site, site.control_host, staged)
    bundles.setdefault(schema.host, []).append(schema)
    return bundles


class KeaDatabase(pulumi.ComponentResource):
    """Kea's roles, database, schema and rights.

    Creates one command on each database host and one on the control host. Makes no reservation and no backup, and
    never removes a role or table.
    """

    roles: list[pulumi.Resource]
    """Done when roles, logins and the database are there: what the poolers need."""
    schema: pulumi.Resource
    """Done when the schema is there and the reader's login was seen to work."""

    def __init__(
        self,
        site: Site,
        hosts: Mapping[str, Host],
        postgres: PostgresCluster,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Register the steps under the site's name; they wait until ``postgres`` has a leader."""
        super().__init__(naming.type_token("components", "KeaDatabase"), naming.resource(site.name, "kea"), {}, opts)
        sent = {(b.host, b.name): b for of_host in kea_bundles(site).values() for b in of_host}

        def apply(host: str, name: str, *depends_on: pulumi.Resource) -> pulumi.Resource:
            return hosts[host].apply(sent[host, name], depends_on=depends_on, parent=self)

        self.roles = [apply(host.name, "kea-roles", postgres.converged) for host in site.database_hosts]
        self.schema = apply(site.control_host.name, "kea-database", *self.roles)
        self.register_outputs({"database": DATABASE, "schema": KEA_SCHEMA[site.kea.version]})


def _platform(site: Site) -> Platform:
    return platform(site.platform, postgresql=site.postgresql.version)


def _logins(site: Site) -> dict[str, dict[str, Any]]:
    """Return every login of every pair; one that is neither in use nor kept is closed: no password, no login."""
    return {
        pair.login(letter): {
            "role": pair.user,
            "secret": pair.secret(letter) if letter in pair.open(site.logins) else None,
            # Objects that the owner's logins make must belong to the role, not to one of the pair.
            "set_role": pair is KEA_OWNER,
        }
        for pair in _PAIRS
        for letter in LETTERS
    }
