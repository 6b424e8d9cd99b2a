"""Drift: what on this host is not as it was last applied. Reads only."""

from __future__ import annotations

import grp
import hashlib
import pwd
import stat
from typing import TYPE_CHECKING, Any

from hostkit import applied, packages, pending, units
from hostkit import bundle as bundles
from hostkit.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hostkit.context import Context

_OFF = frozenset(["disabled", "masked", "masked-runtime", "enabled-runtime", "linked"])


def drift(ctx: Context) -> dict[str, Any]:
    """Return every difference between the host and the applied bundles, and the runs that did not end.

    Files are compared by the digest of what was written, secrets included; nothing secret is returned.
    """
    found: list[dict[str, str]] = []
    records = applied.records(ctx)
    for record in records:
        name = record.bundle.name
        for path, wanted in sorted(record.files.items()):
            found += [{"bundle": name, "path": path, "is": what} for what in _file(ctx, path, wanted)]
        found += [{"bundle": name, "unit": unit, "is": what} for unit, what in _units(ctx, record.bundle.units)]
        absent = packages.missing(ctx, record.bundle.packages.install)
        found += [{"bundle": name, "package": package, "is": "missing"} for package in absent]
    unfinished = list(pending.left(ctx))
    return {
        "bundles": [record.bundle.name for record in records],
        "in_sync": not found and not unfinished,
        "drift": found,
        "unfinished": unfinished,
    }


def _file(ctx: Context, path: str, wanted: Mapping[str, Any]) -> Iterator[str]:
    target = ctx.path(path)
    try:
        info = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        yield "missing"
        return
    if not stat.S_ISREG(info.st_mode):
        yield "not a plain file"
        return
    if hashlib.sha256(target.read_bytes()).hexdigest() != wanted["sha256"]:
        yield "changed"
    if f"{stat.S_IMODE(info.st_mode):04o}" != wanted["mode"]:
        yield f"mode {stat.S_IMODE(info.st_mode):04o} instead of {wanted['mode']}"
    if not _is(ctx.system.uid, wanted["owner"], info.st_uid):
        yield f"owner {_name(lambda: pwd.getpwuid(info.st_uid).pw_name, info.st_uid)} instead of {wanted['owner']}"
    if not _is(ctx.system.gid, wanted["group"], info.st_gid):
        yield f"group {_name(lambda: grp.getgrgid(info.st_gid).gr_name, info.st_gid)} instead of {wanted['group']}"


def _is(lookup: Callable[[str], int], name: str, number: int) -> bool:
    try:
        return lookup(name) == number
    except HostError:
        return False


def _name(lookup: Callable[[], str], number: int) -> str:
    try:
        return lookup()
    except KeyError:
        return str(number)


def _units(ctx: Context, wanted: Mapping[str, bundles.Unit]) -> Iterator[tuple[str, str]]:
    for name, state in units.states(ctx, wanted).items():
        if state.load != "loaded":
            yield name, state.load or "unknown"
        elif state.file in _OFF:
            yield name, state.file
        elif wanted[name].start == bundles.NOW and not state.running:
            yield name, f"{state.active} ({state.sub})"
