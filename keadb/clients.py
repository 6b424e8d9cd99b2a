"""How clients reach the database, as libpq settings.

Clients go through the virtual address and the proxies behind it. Steps of ours (roles, schema, the lab's loader) go
to the nodes themselves: they must work before that way exists, while it is being changed, and when it is broken.

No conninfo needs a name server: each names the host that its certificate must show (``host``) and where it is
(``hostaddr``). None holds a user, a password or the path of the CA certificate.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from keadb import ports

if TYPE_CHECKING:
    from keadb.site import Site

DATABASE = "kea"
PORT = ports.POSTGRESQL
"""Where PostgreSQL itself listens."""

_COMMON = f"dbname={DATABASE} sslmode=verify-full connect_timeout=2"


def conninfo(site: Site) -> str:
    """Return the conninfo of a writing client: the virtual address, wherever the leader is."""
    return f"host={site.primary_name} hostaddr={site.network.vip} port={ports.WRITE} {_COMMON}"


def read_conninfo(site: Site) -> str:
    """Return the conninfo of a reading client: the virtual address, and past it each node's own proxy.

    The name is always the service's: a node's proxy sends readers to another node, which shows its own names.
    """
    places = [site.network.vip, *(host.address for host in site.database_hosts)]
    hosts, addresses = ",".join([site.standby_name] * len(places)), ",".join(map(str, places))
    return f"host={hosts} hostaddr={addresses} port={ports.READ} {_COMMON}"


def direct_conninfo(site: Site) -> str:
    """Return the conninfo of our own steps: libpq asks each node's PostgreSQL and takes the one that takes writes."""
    hosts = ",".join(site.fqdn(host) for host in site.database_hosts)
    addresses = ",".join(str(host.address) for host in site.database_hosts)
    return f"host={hosts} hostaddr={addresses} port={PORT} {_COMMON} target_session_attrs=read-write"


def sources(site: Site) -> list[str]:
    """Return which networks the proxies let in: Kea's servers, named clients, the site's own hosts (steps)."""
    # The virtual address is its holder's own source when it connects to it.
    own = [IPv4Network(address) for address in (site.network.vip, *(host.address for host in site.hosts.values()))]
    servers = [IPv4Network(address) for address in site.kea.servers.values()]
    return [str(network) for network in dict.fromkeys([*servers, *site.network.clients, *own])]
