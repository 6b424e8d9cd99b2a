"""The audit's items about versions and the services around PostgreSQL: who they let in. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from keadb.platforms import platform
from keadb.site import Host, Site
from keadb.versions import MINOR_FLOORS, below_floor, parse
from ops.audit_model import OWN, Check, Facts, Group, Item, among, equal, nothing

_DATABASE = "database"
_REFUSED = "refused"
_PACKAGED = {"patroni": "patroni", "etcd-server": "etcd", "pgbouncer": "pgbouncer", "haproxy": "haproxy"}
_PACKAGED |= {"keepalived": "keepalived"}


def _minor(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    number = facts.part(_DATABASE)["version"]
    major, minor = divmod(number, 10_000)
    floor = MINOR_FLOORS.get(major)
    expected = f"{major}.{floor} or newer" if floor is not None else f"one of {', '.join(map(str, MINOR_FLOORS))}"
    good = floor is not None and minor >= floor
    return [Check(what="PostgreSQL that runs", expected=expected, actual=f"{major}.{minor}", good=good)]


def _versions(facts: Facts, site: Site, host: Host) -> Iterable[Check]:
    have = facts.part("packages")
    old = [why for package, key in _PACKAGED.items() if package in have and (why := below_floor(key, have[package]))]
    on = platform(site.platform, postgresql=site.postgresql.version)
    wanted = {
        name
        for role, services in (
            ("database", ("postgresql", "patroni", "pooler", "proxy", "virtual_address")),
            ("etcd", ("etcd",)),
        )
        if role in host.roles
        for service in services
        for name in on.packages[service]
    }
    unread = [f"{name} {version}" for name, version in have.items() if not _has_number(version)]
    return [
        nothing("programs below their floor", old),
        nothing("packages that are missing", wanted - set(have)),
        nothing("packages whose version is none", unread),
    ]


def _has_number(version: str) -> bool:
    try:
        return bool(parse(version))
    except ValueError:
        return False


def _patroni(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("patroni")
    return [
        equal("a change without the password", _REFUSED, said["without_password"]),
        equal("a change without a certificate", _REFUSED, said["without_certificate"]),
        equal("a question in clear", _REFUSED, said["cleartext"]),
    ]


def _etcd_certificates(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("etcd")
    return [
        equal("a client without a certificate", _REFUSED, said["without_certificate"]),
        equal("a peer without a certificate", _REFUSED, said["peer_without_certificate"]),
        equal("a question in clear", _REFUSED, said["cleartext"]),
    ]


def _etcd_login(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    return [equal("a read without a login", _REFUSED, facts.part("etcd")["without_login"])]


def _pooler_logins(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("pooler")
    loose = [
        " ".join(rule) for rule in said["rules"] if rule not in (["hostssl", "scram-sha-256"], ["hostssl", "reject"])
    ]
    return [
        equal("auth_type", "hba", said["auth_type"]),
        nothing("rules without TLS or SCRAM", loose),
        equal("admin_users", "", said["admin_users"]),
        equal("stats_users", "", said["stats_users"]),
        equal("auth_file (passwords in a file)", "", said["auth_file"]),
    ]


def _pooler_tls(facts: Facts, _site: Site, host: Host) -> Iterable[Check]:
    said = facts.part("pooler")
    newer = ("tlsv1.2,tlsv1.3", "tlsv1.3", "secure")
    return [
        among("client_tls_sslmode", ("require", "verify-ca", "verify-full"), said["client_tls_sslmode"]),
        among("client_tls_protocols", newer, said["client_tls_protocols"]),
        equal("server_tls_sslmode", "verify-full", said["server_tls_sslmode"]),
        among("server_tls_protocols", newer, said["server_tls_protocols"]),
        equal("listen_addr", str(host.address), said["listen_addr"]),
    ]


def _proxy(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("proxy")
    loose = [
        f"{path} {s['mode']} {s['owner']}"
        for path, s in said["sockets"].items()
        if s["mode"] != "0600" or s["owner"] not in {"haproxy", "root"}
    ]
    return [
        nothing("sockets for people that others may use", loose),
        nothing("sockets with more than a user's rights", (level for level in said["levels"] if level != "user")),
        nothing("pages of statistics", said["pages"]),
    ]


def _proxy_checks(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("proxy")
    return [
        equal("ssl-server-verify", "required", said["verify"]),
        equal("places that do not verify", 0, said["unverified"]),
        among("oldest TLS of its checks", ("TLSv1.2", "TLSv1.3"), said["oldest_tls"]),
    ]


def _address(facts: Facts, site: Site, host: Host) -> Iterable[Check]:
    said = facts.part("address")
    peers = {str(other.address): True for other in site.database_hosts if other != host}
    return [
        equal("its check runs only from files of root", expected=True, actual=said["script_security"]),
        Check(
            what="user of its check",
            expected="not root",
            actual=said["script_user"],
            good=said["script_user"] not in {"", "root"},
        ),
        equal("peers, each from the same wire only", peers, said["peers"]),
        equal("it looks at the sender's address", bool(peers), said["checks_source"]),
    ]


VERSIONS = Group(
    name="Versions",
    items=(
        Item(
            id="postgresql-minor",
            source="CIS 1, security patches",
            title="PostgreSQL has the security fixes of its major version",
            look=_minor,
            role=_DATABASE,
        ),
        Item(
            id="versions",
            source="CIS 1, packages",
            title="Every program is there, at its floor or above",
            look=_versions,
        ),
    ),
)

AROUND = Group(
    name="Services around PostgreSQL",
    items=(
        Item(
            id="patroni-rest",
            source=OWN,
            title="Patroni takes no change without certificate and password",
            look=_patroni,
            role=_DATABASE,
        ),
        Item(
            id="etcd-certificates",
            source=OWN,
            title="etcd talks to nobody without a certificate of the site",
            look=_etcd_certificates,
            role="etcd",
        ),
        Item(id="etcd-login", source=OWN, title="etcd wants a login", look=_etcd_login, role="etcd"),
        Item(
            id="pooler-logins",
            source=OWN,
            title="PgBouncer lets in by SCRAM over TLS, and nobody to its console",
            look=_pooler_logins,
            role=_DATABASE,
        ),
        Item(
            id="pooler-tls",
            source=OWN,
            title="PgBouncer speaks verified TLS both ways",
            look=_pooler_tls,
            role=_DATABASE,
        ),
        Item(id="proxy-socket", source=OWN, title="HAProxy's socket is for root's eyes", look=_proxy, role=_DATABASE),
        Item(
            id="proxy-checks", source=OWN, title="HAProxy verifies whom it asks", look=_proxy_checks, role=_DATABASE
        ),
        Item(
            id="address-peers",
            source=OWN,
            title="keepalived hears its peers only, from the same wire",
            look=_address,
            role=_DATABASE,
        ),
    ),
)
