"""What differs between operating systems: package names, paths, and which versions a platform carries.

Versions and their floors are in `keadb.versions`. Nothing here says where packages come from: hosts use the
package sources that they were installed with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keadb.versions import POSTGRESQL_VERSIONS


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One operating system with one PostgreSQL version chosen.

    ``packages`` maps a service (base, time, firewall, etcd, patroni, postgresql, postgresql_client, kea_admin,
    pooler, proxy, virtual_address) to what is installed; an empty tuple means "not from a package". ``pins`` maps a
    program, as the site file names it under ``packages``, to the packages that take its version; ``runs`` maps a
    service to those that its process is made of. ``mask`` maps a service to units that its packages would start by
    themselves. ``ran`` says whether anybody has run keadb there; ``note`` says what to know before.
    """

    name: str
    os_release: tuple[str, str]
    """``ID`` and ``VERSION_ID`` of its /etc/os-release."""
    ran: bool
    note: str
    postgresql_versions: tuple[int, ...]
    kea_versions: tuple[str, ...]
    etcd_from_archive: bool
    packages: Mapping[str, tuple[str, ...]]
    pins: Mapping[str, tuple[str, ...]]
    runs: Mapping[str, tuple[str, ...]]
    mask: Mapping[str, tuple[str, ...]]
    pg_bindir: str
    etcd_bindir: str
    kea_admin: str = "/usr/sbin/kea-admin"
    patroni: str = "/usr/bin/patroni"
    patronictl: str = "/usr/bin/patronictl"
    ca_bundle: str = "/etc/ssl/certs/ca-certificates.crt"

    def install(self, service: str, versions: Mapping[str, str]) -> tuple[str, ...]:
        """Return the packages of a service as the applier takes them: ``NAME=VERSION`` where one is pinned.

        ``versions`` maps programs (the keys of ``pins``) to full package versions. A package that two services have
        gets the same version in both.
        """
        wanted = {name: version for program, version in versions.items() for name in self.pins[program]}
        return tuple(f"{name}={wanted[name]}" if name in wanted else name for name in self.packages[service])


_PATRONI = ("patroni", "python3-etcd", "python3-psycopg2")
_BASE = ("ca-certificates", "iproute2", "openssl", "python3", "sudo")


def _debian_13(postgresql: int) -> Platform:
    return Platform(
        name="debian-13",
        os_release=("debian", "13"),
        ran=True,
        note="the lab: PostgreSQL 15 comes from Debian 12's archive as a second source, the rest from Debian 13",
        postgresql_versions=(15,),
        kea_versions=("2.6",),
        etcd_from_archive=False,
        packages=_packages(postgresql, etcd=("etcd-client", "etcd-server"), kea_admin=("kea-admin", "kea-common")),
        pins=_pins(postgresql, etcd=("etcd-client", "etcd-server"), kea_admin=("kea-admin", "kea-common")),
        runs=_runs(postgresql, etcd=("etcd-server",)),
        mask=_MASK,
        pg_bindir=f"/usr/lib/postgresql/{postgresql}/bin",
        etcd_bindir="/usr/bin",
    )


def _ubuntu_24_04(postgresql: int) -> Platform:
    return Platform(
        name="ubuntu-24.04",
        os_release=("ubuntu", "24.04"),
        ran=False,
        note="not run: needs PGDG (PostgreSQL, Patroni 4), ISC's archive (Kea 3.0) and etcd's release archive",
        postgresql_versions=POSTGRESQL_VERSIONS,
        kea_versions=("3.0",),
        etcd_from_archive=True,  # the distribution has no etcd 3.5
        packages=_packages(postgresql, etcd=(), kea_admin=("isc-kea-admin", "isc-kea-common")),
        pins=_pins(postgresql, etcd=(), kea_admin=("isc-kea-admin", "isc-kea-common")),
        runs=_runs(postgresql, etcd=()),
        mask=_MASK,
        pg_bindir=f"/usr/lib/postgresql/{postgresql}/bin",
        etcd_bindir="/usr/lib/keadb/etcd",
    )


def _packages(postgresql: int, *, etcd: tuple[str, ...], kea_admin: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    client = f"postgresql-client-{postgresql}"
    return MappingProxyType(
        {
            "base": _BASE,
            "time": ("chrony",),
            "firewall": ("nftables",),
            "etcd": etcd,
            "patroni": _PATRONI,
            "postgresql": (f"postgresql-{postgresql}", client),
            "postgresql_client": (client,),
            "kea_admin": (*kea_admin, client),  # kea-admin runs psql and does not depend on it
            "pooler": ("pgbouncer",),
            "proxy": ("haproxy",),
            "virtual_address": ("keepalived",),
        }
    )


def _pins(postgresql: int, *, etcd: tuple[str, ...], kea_admin: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Return which packages are built together: what one of them depends on in exactly its own version included."""
    return MappingProxyType(
        {
            "etcd": etcd,
            "patroni": ("patroni",),
            "postgresql": (f"postgresql-{postgresql}", f"postgresql-client-{postgresql}"),
            "kea_admin": kea_admin,
        }
    )


def _runs(postgresql: int, *, etcd: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({"etcd": etcd, "patroni": _PATRONI, "postgresql": (f"postgresql-{postgresql}",)})


_MASK: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "etcd": ("etcd.service",),
        "patroni": ("patroni.service",),
        "postgresql": ("postgresql.service",),
        "pooler": ("pgbouncer.service",),
        "proxy": ("haproxy.service",),
        "virtual_address": ("keepalived.service",),
    }
)
"""Units that packages enable and start on installation, before our configuration is there."""

_MAKERS = {"debian-13": _debian_13, "ubuntu-24.04": _ubuntu_24_04}


def platform(name: str, *, postgresql: int = 15) -> Platform:
    """Return the platform called ``name`` for a PostgreSQL version. Raises KeyError with the known names."""
    if name not in _MAKERS:
        message = f"platform {name!r} is not known; known: {', '.join(_MAKERS)}"
        raise KeyError(message)
    return _MAKERS[name](postgresql)
