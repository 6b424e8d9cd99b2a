"""Restarts that are due: what a running unit of a cluster has not read yet.

The applier writes the files of a unit whose start is ``cluster`` while it runs, and records *before* that here
which of them it has yet to read. A cluster-level step, which knows who leads and who is healthy, restarts the
unit when its turn has come and clears the record once it has seen the restarted unit healthy. Cut in between,
the record stays, so at worst a unit is restarted once more than needed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hostkit.errors import HostError
from hostkit.files import Owner, make_private, remove, replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostkit.context import Context

FOLDER = "/var/lib/keadb/due"


def add(ctx: Context, unit: str, paths: Iterable[str]) -> None:
    """Record that a unit must be restarted to read these paths, beside those recorded earlier."""
    known = due(ctx, unit)
    wanted = sorted({*known, *paths})
    if not wanted or tuple(wanted) == known:
        return
    make_private(ctx, FOLDER)
    text = json.dumps({"unit": unit, "paths": wanted}, indent=1) + "\n"
    replace(ctx, _path(unit), text.encode(), mode=0o600, owner=Owner.root(ctx))


def due(ctx: Context, unit: str) -> tuple[str, ...]:
    """Return the paths for which a unit's restart is due, sorted; empty when none is.

    HostError when the record is not readable: whether to restart is not guessed.
    """
    try:
        record = json.loads(ctx.path(_path(unit)).read_text(encoding="utf-8"))
        return tuple(sorted(str(path) for path in record["paths"]))
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as e:
        msg = f"{_path(unit)} is not readable ({type(e).__name__}); remove it and restart {unit} by hand"
        raise HostError(msg) from None


def clear(ctx: Context, unit: str) -> None:
    """Forget what was due: call it only when the restarted unit was seen healthy."""
    remove(ctx, _path(unit))


def _path(unit: str) -> str:
    return f"{FOLDER}/{unit}.json"
