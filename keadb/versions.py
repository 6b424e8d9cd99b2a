"""Versions: what may be chosen, and the floors below which a service is refused, each with its reason.

This is the one place for versions of what runs on hosts. Package names and paths are in `keadb.platforms`.
"""

from __future__ import annotations

from dataclasses import dataclass

PLATFORMS = ("ubuntu-24.04", "debian-13")
POSTGRESQL_VERSIONS = (15, 16, 17)
KEA_VERSIONS = ("2.6", "3.0")

KEA_SCHEMA = {"2.6": "22.2", "3.0": "29.0"}
"""Schema version that `kea-admin db-init` of a Kea version makes: the first of its stable series reads no other."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Lowest version that we run, and what breaks below it."""

    version: str
    reason: str


FLOORS = {
    "postgresql": Floor(version="15", reason="Kea's schema and our grants assume 15's rights on schema public"),
    "patroni": Floor(version="4.0", reason="primary_start_timeout, quorum-free sync and REST roles as of 4.0"),
    "etcd": Floor(
        version="3.5", reason="the v3 API with RBAC over the JSON gateway as Patroni's etcd3 driver uses it"
    ),
    "pgbouncer": Floor(version="1.22", reason="Kea prepares its statements: transaction mode loses them below 1.22"),
    "pgbackrest": Floor(version="2.49", reason="TLS server and block incremental are final"),
    "haproxy": Floor(version="2.6", reason="http-check connect chains as used by our health checks"),
    "keepalived": Floor(version="2.2.5", reason="it runs without root, and handles faults of track_script"),
    "openssl": Floor(version="3.0", reason="`openssl req -addext` and the key formats that the host writes"),
    "python": Floor(version="3.11", reason="the host side uses the standard library of 3.11"),
}

MINOR_FLOORS = {15: 15, 16: 11, 17: 7}
"""Lowest minor version by PostgreSQL's major one: security fixes of November 2025. `keadb audit` asks for it; raise
it with every release that fixes a hole, together with what the sites run."""

ETCD_NEEDS_NEWER_PATRONI = ("3.5.28", "4.1.1")
"""From this etcd on, member list and keepalive need authentication, which Patroni sends only from that version."""


def parse(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version ("4.0.7-1~deb13" gives 4, 0, 7).

    Raises ValueError for text that does not start with a number. Does not order suffixes such as "rc1".
    """
    numbers: list[int] = []
    for part in version.split(":", 1)[-1].split("."):
        digits = ""
        for character in part:
            if not ("0" <= character <= "9"):
                break
            digits += character
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    if not numbers:
        message = f"version {version!r} does not start with a number"
        raise ValueError(message)
    return tuple(numbers)


def below_floor(service: str, version: str) -> str | None:
    """Return why ``version`` of ``service`` is too old, or None. An unknown service is a KeyError."""
    floor = FLOORS[service]
    if parse(version) >= parse(floor.version):
        return None
    return f"{service} {version} is below {floor.version}: {floor.reason}"


def etcd_patroni_mismatch(etcd: str, patroni: str) -> str | None:
    """Return why this pair of versions does not work together, or None."""
    newer_etcd, newer_patroni = ETCD_NEEDS_NEWER_PATRONI
    if parse(etcd) < parse(newer_etcd) or parse(patroni) >= parse(newer_patroni):
        return None
    return (
        f"etcd {etcd} (from {newer_etcd} on) needs Patroni {newer_patroni}, not {patroni}: it asks for authentication"
    )
