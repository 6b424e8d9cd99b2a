"""Which image each host of a lab is a layer over: the full one, or a bare one; a disk stays with its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab import bare, image
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lab.model import LabSpec


class Image(NamedTuple):
    """A host's image: whether it is a bare one, and its folder."""

    bare: bool
    folder: Path


def ensure(spec: LabSpec, bare_hosts: Iterable[str], say: Callable[[str], None]) -> dict[str, Image]:
    """Return the image for each host by its name, building what is missing from the cache.

    A host with a disk keeps its image; the others get today's. ``bare_hosts`` names those that start bare.
    LabError for one of them that has a disk of the other kind, and when a disk's image is gone.
    """
    wanted = {spec.host(name) for name in bare_hosts}
    recorded = read(spec)
    chosen = {}
    for host in spec.hosts:
        used = recorded.get(host.name) if spec.disk(host).exists() else None
        if used is None:
            chosen[host.name] = Image(host in wanted, (bare if host in wanted else image).ensure(say))
        elif not used.folder.is_dir():
            message = (
                f"the image of {host.name}'s disk is gone ({used.folder}); take the lab down first: keadb lab down"
            )
            raise LabError(message)
        elif host in wanted and not used.bare:
            message = f"{host.name} has a disk that was not made bare; take the lab down first: keadb lab down"
            raise LabError(message)
        else:
            chosen[host.name] = used
    return chosen


def record(spec: LabSpec, chosen: Mapping[str, Image]) -> None:
    """Write the choice down; must be done before disks are made."""
    data = {name: {"bare": it.bare, "folder": str(it.folder)} for name, it in chosen.items()}
    temporary = spec.images.with_suffix(".new")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    temporary.replace(spec.images)


def read(spec: LabSpec) -> dict[str, Image]:
    """Return what was written down; nothing when there is nothing."""
    try:
        data = json.loads(spec.images.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: Image(entry["bare"], Path(entry["folder"])) for name, entry in data.items()}
