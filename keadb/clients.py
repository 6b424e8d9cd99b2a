"""How clients reach the database, as libpq settings.

Until the site has a virtual address with a proxy behind it, they name both database hosts and ask for the one that
takes writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keadb.site import Site

DATABASE = "kea"
PORT = 5432


def conninfo(site: Site) -> str:
    """Return the conninfo of a writing client, without user, password and the path of the CA certificate."""
    hosts = ",".join(str(host.address) for host in site.database_hosts)
    return (
        f"host={hosts} port={PORT} dbname={DATABASE} sslmode=verify-full "
        "target_session_attrs=read-write connect_timeout=2"
    )
