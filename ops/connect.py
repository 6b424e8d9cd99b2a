"""psql through a site's own way, with the login in use and the site's CA. Plans are pure; ``start`` becomes psql.

The password and the CA certificate are in memory only: psql reads them through descriptors that it inherits. Neither
is a file, an argument or an environment variable.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from keadb import clients
from keadb.logins import KEA_OWNER, KEA_READ
from keadb.site import Site
from ops.exits import CommandError

WAYS = ("write", "read", "direct")
"""The virtual address's two ports, and PostgreSQL of the node that takes writes, past poolers and proxies."""
_KEPT = frozenset(["PGCLIENTENCODING", "PGTZ"])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One connection: libpq's settings without password and CA, the login, and the secret that opens it."""

    conninfo: str
    user: str
    secret: str
    way: str

    def said(self, site: Site) -> str:
        """Return one line for people: who goes where."""
        if self.way == "direct":
            return f"{site.name}: {self.user} at PostgreSQL of the leader, past pooler and proxy"
        port = dict(pair.split("=", 1) for pair in self.conninfo.split())["port"]
        return f"{site.name}: {self.user} through {site.network.vip}:{port} ({self.way})"


def plan(site: Site, way: str) -> Plan:
    """Return the connection of one of ``WAYS``: readers log in as kea_read, all others as kea_owner."""
    by_way = {"write": clients.conninfo, "read": clients.read_conninfo, "direct": clients.direct_conninfo}
    pair = KEA_READ if way == "read" else KEA_OWNER
    letter = pair.active(site.logins)
    return Plan(
        conninfo=f"{by_way[way](site)} user={pair.login(letter)}",
        user=pair.login(letter),
        secret=pair.secret(letter),
        way=way,
    )


def refused_source(site: Site, mine: IPv4Address) -> str | None:
    """Return why this machine will be cut off before TLS, or None when its address is one of those let in.

    Says nothing about address translation between here and the site.
    """
    if any(mine in IPv4Network(source) for source in clients.sources(site)):
        return None
    return (
        f"this machine reaches the site from {mine}, which is neither in kea.servers nor in network.clients: "
        "the site will cut the connection"
    )


def own_address(towards: IPv4Address) -> IPv4Address | None:
    """Return the address that this machine has on its way to another, None without a route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(towards), 9))
        except OSError:
            return None
        return IPv4Address(probe.getsockname()[0])


def environment(outside: Mapping[str, str]) -> dict[str, str]:
    """Return psql's environment: libpq's variables of this shell belong to other servers and would decide here."""
    return {key: value for key, value in outside.items() if not key.startswith("PG") or key in _KEPT}


def start(to: Plan, *, site: Site, password: str, ca: str, arguments: Sequence[str]) -> None:
    """Become psql. Raises CommandError when there is none; does not return otherwise."""
    psql = shutil.which("psql")
    if psql is None:
        msg = "psql is not on the path: install it (Debian, Ubuntu: apt-get install postgresql-client)"
        raise CommandError(msg)
    conninfo = f"{to.conninfo} sslrootcert={_in_memory('ca', ca)} application_name=keadb-connect"
    prompt = f"PROMPT1={site.name} {to.way} %n@%/%R%x%# "
    argv = [psql, f"--dbname={conninfo}", f"--set={prompt}", *arguments]
    os.execve(psql, argv, environment(os.environ) | {"PGPASSFILE": _in_memory("login", f"*:*:*:*:{password}\n")})  # noqa: S606 -- no shell


def _in_memory(name: str, content: str) -> str:
    """Return a path by which this process, and what it becomes, reads the content."""
    descriptor = os.memfd_create(f"keadb-{name}", 0)
    os.fchmod(descriptor, 0o600)  # libpq reads no password that others could
    os.write(descriptor, content.encode())
    os.set_inheritable(descriptor, True)  # noqa: FBT003 -- its signature
    return f"/proc/self/fd/{descriptor}"
