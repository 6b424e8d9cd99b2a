"""Edits of a lab's site file that change which machines carry what: each takes the site's data and changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lab import keys
from lab.sitefile import TOPOLOGIES, entry

if TYPE_CHECKING:
    from lab.api import Lab

Edit = Callable[[dict[str, Any]], None]


def topology(lab: Lab, wanted: str) -> Edit:
    """Declare the machines of a topology (``ha`` or ``single``) and no other; those that stay keep their entries."""

    def edit(site: dict[str, Any]) -> None:
        names = [f"{lab.spec.name}-{short}" for short in TOPOLOGIES[wanted]]
        site["topology"] = wanted
        site["hosts"] = {name: site["hosts"].get(name) or _entry(lab, name, site) for name in names}

    return edit


def witness_moved(lab: Lab) -> Edit:
    """Replace the witness by the lab's spare machine, or the other way round."""

    def edit(site: dict[str, Any]) -> None:
        here, there = f"{lab.spec.name}-kea-witness", f"{lab.spec.name}-kea-witness-02"
        old, new = (here, there) if here in site["hosts"] else (there, here)
        site["hosts"] = {name: host for name, host in site["hosts"].items() if name != old}
        site["hosts"][new] = _entry(lab, new, site)

    return edit


def domain(name: str) -> Edit:
    """Give the site another domain."""

    def edit(site: dict[str, Any]) -> None:
        site["domain"] = name

    return edit


def _entry(lab: Lab, name: str, site: dict[str, Any]) -> dict[str, Any]:
    host = lab.spec.host(name)
    size = next(iter(site["hosts"].values()))["disk_gb"]
    return entry(host, keys.public_line(lab.spec.host_key(host)), disk_gb=size)
