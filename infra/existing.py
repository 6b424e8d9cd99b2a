"""Machines that exist already: nothing is created, the site file says how to reach them.

It does not install the deploy user or its key: docs/real-site.md says what a host must have before the first run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.machine import Machine

if TYPE_CHECKING:
    from keadb.site import Site


def existing_machines(site: Site) -> dict[str, Machine]:
    """Return a machine for every host of the site file, in the order of the file."""
    return {
        host.name: Machine(
            name=host.name,
            address=str(host.address),
            port=host.ssh_port,
            user=host.ssh_user,
            host_key=host.ssh_host_key,
        )
        for host in site.hosts.values()
    }
