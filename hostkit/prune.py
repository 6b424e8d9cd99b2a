"""Taking away what a newer bundle, or a newer list of bundles, no longer has: files, TLS placements, units.

A unit is stopped and disabled before its files go. What another bundle places or manages stays. Refused before
anything is touched: a unit of a cluster that runs (taking a member out is a cluster-level matter), and a file that
somebody edited. Packages, holds, masks, users and folders stay: removing them could take data or other
services along.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit import applied, edits, files, pending, tls, units
from hostkit import bundle as bundles
from hostkit.errors import Refused, during
from hostkit.known import MISSING, Known, forget_accepted, look, written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hostkit.context import Context

REMOVED = "removed"
_ENABLED = frozenset(["enabled", "enabled-runtime", "linked", "linked-runtime", "alias"])


@dataclass(frozen=True)
class Leaving:
    """What one bundle placed or managed and is to go; ``watchers`` are its units as they were."""

    bundle: str
    paths: tuple[str, ...] = ()
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Unit name to who starts it."""
    watchers: Mapping[str, bundles.Unit] = dataclasses.field(default_factory=dict)


def leaving(
    ctx: Context,
    known: Known,
    name: str,
    *,
    keep_paths: Collection[str] = (),
    keep_units: Collection[str] = (),
    gone: Collection[str] = (),
) -> Leaving:
    """Return what bundle ``name`` still has on the host besides what is to be kept.

    ``gone`` names bundles that leave with it: what only they share is not kept for their sake. Reads only.
    """
    record, run = known.records.get(name), known.runs.get(name)
    own = {name, *gone}
    paths = set(record.files if record else ()) | set(run.about if run else ())
    paths = {p for p in paths if p not in keep_paths and p != tls.CA and not known.placed_elsewhere(p, own)}
    watchers = dict(record.bundle.units) if record else {}
    managed = {n: u.start for n, u in watchers.items()} | (run.units if run else {})
    others = {n for b, r in known.records.items() if b not in own for n in r.bundle.units}
    others |= {n for b, r in known.runs.items() if b not in own for n in r.units}
    return Leaving(
        name,
        tuple(p for p in sorted(paths) if _ours(ctx, known, p)),
        {n: start for n, start in sorted(managed.items()) if n not in others and n not in keep_units},
        watchers,
    )


def _ours(ctx: Context, known: Known, path: str) -> bool:
    """Leave alone what is gone already, and what a cut run was only about to write over."""
    seen = look(ctx, path)
    if seen.kind == "missing":
        return False
    if known.recorded(path):
        return True
    return any(seen.kind == "file" and written(s) and seen.digest == s["sha256"] for s in known.about(path))


def refuse(ctx: Context, known: Known, parts: Iterable[Leaving], host: str) -> None:
    """Refuse when a unit of a cluster runs, or a file that is to go was edited by hand."""
    parts = list(parts)
    theirs = [n for part in parts for n, start in part.units.items() if start != bundles.NOW]
    running = [n for n, s in units.states(ctx, theirs).items() if s.active not in {"inactive", "failed"}]
    if running:
        msg = (
            f"nothing was changed: {', '.join(running)} would go, but runs. Taking a member out of its cluster is a "
            f"step of its own; when it has left the cluster and is stopped on {host}, run this again"
        )
        raise Refused(msg)
    edited = {path: found for part in parts for path in part.paths if (found := _edited(ctx, known, part, path))}
    if edited:
        raise Refused(edits.message(ctx, known, edited, host, "remove"))


def _edited(ctx: Context, known: Known, part: Leaving, path: str) -> list[str]:
    record = known.records.get(part.bundle)
    placed_as_tls = record is not None and path in record.files and path not in record.bundle.files
    return [] if placed_as_tls else known.edits(ctx, path)


def expect(todo: pending.Pending, part: Leaving) -> None:
    """Note in the plan what is about to go; the caller saves it."""
    todo.expect((path, MISSING) for path in part.paths)
    todo.daemon_reload = todo.daemon_reload or any(p.startswith(units.FILES) for p in part.paths)
    todo.restart -= set(part.units)
    todo.reload -= set(part.units)


def carry_out(ctx: Context, part: Leaving) -> tuple[dict[str, str], dict[str, str]]:
    """Stop and disable the units, then remove the files; return what was done to which path and unit."""
    stopped = {}
    for name, state in units.states(ctx, part.units).items():
        if state.load == "not-found":
            continue
        with during(f"unit {name}, which is to go"):
            if state.active not in {"inactive", "failed"}:
                ctx.say(f"{name}: stop")
                units.systemctl(ctx, "stop", "--", name)
                stopped[name] = "stopped"
            if state.active == "failed":
                units.systemctl(ctx, "reset-failed", "--", name)
            if state.file in _ENABLED:
                units.systemctl(ctx, "disable", "--", name)
                stopped.setdefault(name, "disabled")
    removed = {}
    for path in part.paths:
        with during(f"file {path}, which is to go"):
            if files.remove(ctx, path):
                removed[path] = REMOVED
    return removed, stopped


def would_refuse(ctx: Context, host: str, keep: Collection[str]) -> str | None:
    """Return why ``others`` would refuse now, None when it would not; reads only."""
    known = Known.load(ctx)
    try:
        refuse(ctx, known, _gone(ctx, known, keep), host)
    except Refused as e:
        return str(e)
    return None


def _gone(ctx: Context, known: Known, keep: Collection[str]) -> list[Leaving]:
    names = sorted((set(known.records) | set(known.runs)) - set(keep))
    return [leaving(ctx, known, name, gone=names) for name in names]


def others(ctx: Context, host: str, keep: Collection[str]) -> dict[str, Any]:
    """Take away every bundle that is applied here (or was, half way) and is not among ``keep``.

    The caller holds the lock. Cut anywhere, the next run goes on. All refusals come before the first change.
    """
    known = Known.load(ctx)
    parts = _gone(ctx, known, keep)
    refuse(ctx, known, parts, host)
    removed: dict[str, str] = {}
    stopped: dict[str, str] = {}
    for part in parts:
        with during(f"bundle {part.bundle}, which is to go"):
            todo = known.runs.get(part.bundle) or pending.Pending(part.bundle)
            for path in todo.about:
                files.sweep(ctx, path)
            expect(todo, part)
            todo.save(ctx)
            done = carry_out(ctx, part)
            removed.update(done[0])
            stopped.update(done[1])
            _forget(ctx, todo, part)
    gone = [part.bundle for part in parts]
    return {"changed": bool(gone), "bundles": gone, "files": removed, "units": stopped}


def _forget(ctx: Context, todo: pending.Pending, part: Leaving) -> None:
    if todo.daemon_reload:
        units.systemctl(ctx, "daemon-reload")
    forget_accepted(ctx, part.paths)
    # The plan goes last: without a record it is what a later run still knows of this bundle.
    files.remove(ctx, f"{applied.FOLDER}/{part.bundle}.json")
    files.remove(ctx, f"{pending.FOLDER}/{part.bundle}.json")
