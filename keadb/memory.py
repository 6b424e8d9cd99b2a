"""PostgreSQL's memory and parallelism from the sizes in the site file.

From the file, never from what the host sees: a container sees the whole machine's memory and cores.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keadb.site import Host, Postgresql


def smallest(hosts: Iterable[Host]) -> tuple[int, int]:
    """Return the least memory (MiB) and the fewest cores among ``hosts``.

    Settings that all members share must fit the smallest of them. Raises ValueError when there is no host.
    """
    found = list(hosts)
    return min(host.memory_mb for host in found), min(host.cores for host in found)


def settings(memory_mb: int, cores: int, postgresql: Postgresql) -> dict[str, str]:
    """Return parameters for a host of that size, as PostgreSQL writes them ("256MB", "4"), sorted by name.

    - shared_buffers: as the site file says, else 25 % (the usual share; more takes from the page cache).
    - effective_cache_size: 75 %, a hint to the planner, nothing is allocated.
    - maintenance_work_mem: 1/16, 64 MiB to 1 GiB; up to three autovacuum workers may take it each.
    - work_mem: what is left if every connection sorts twice at once, 4 to 64 MiB; Kea's lookups need almost none.
    - parallel workers: at most the cores; a query takes at most half of them, so that lookups go on beside it.
    """
    shared = postgresql.shared_buffers_mb or max(64, memory_mb // 4)
    maintenance = min(1024, max(64, memory_mb // 16))
    work = min(64, max(4, (memory_mb - shared - maintenance) // (2 * postgresql.max_connections)))
    return {
        "effective_cache_size": f"{memory_mb * 3 // 4}MB",
        "maintenance_work_mem": f"{maintenance}MB",
        "max_parallel_workers": str(min(8, cores)),
        "max_parallel_workers_per_gather": str(min(4, cores // 2)),
        "shared_buffers": f"{shared}MB",
        "work_mem": f"{work}MB",
    }
