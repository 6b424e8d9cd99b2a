"""What a path may look like without it being somebody's edit: drift, told from our own doings.

A path is as we left it when it is as the last applied record of any bundle says, as a run that was cut was about
to leave it (``pending``), or as an operator accepted it (``accept``). A path that none of these knows is not ours
yet: what stood there before keadb came is written over like the rest of a distribution's defaults.
"""

from __future__ import annotations

import grp
import hashlib
import json
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit import applied, pending
from hostkit.errors import HostError
from hostkit.files import Owner, make_parents, remove, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hostkit.context import Context
    from hostkit.placing import Placement

ACCEPTED = "/var/lib/keadb/accepted.json"
"""Edits that an operator has seen: path to its state then."""
MISSING: Mapping[str, Any] = {"missing": True}
"""The state of a path where nothing is; what a run that removes files is about to leave."""


@dataclass(frozen=True)
class Seen:
    """A path as it is: ``kind`` is "file", "missing" or "other" (a link, a folder, a device)."""

    kind: str
    data: bytes = b""
    mode: int = 0
    uid: int = -1
    gid: int = -1

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the content."""
        return hashlib.sha256(self.data).hexdigest()

    def state(self) -> dict[str, Any]:
        """Return what ``accept`` remembers of it."""
        if self.kind == "missing":
            return dict(MISSING)
        return {"sha256": self.digest, "mode": f"{self.mode:04o}", "uid": self.uid, "gid": self.gid}

    def before(self) -> dict[str, Any]:
        """Return what stood here before keadb first wrote; empty for no plain file."""
        if self.kind != "file":
            return {}
        named = {"owner": _user(self.uid), "group": _group(self.gid)}
        return {"sha256": self.digest, "mode": f"{self.mode:04o}", **named, "before": True}


def look(ctx: Context, path: str) -> Seen:
    """Return a path as it is; follows no link."""
    target = ctx.path(path)
    try:
        info = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Seen("missing")
    if not stat.S_ISREG(info.st_mode):
        return Seen("other")
    return Seen("file", target.read_bytes(), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)


def differences(ctx: Context, seen: Seen, allowed: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return in what a path differs from all of these states: content, mode, owner, group.

    Each aspect may be as in another state: a run that changes several ends with all of them.
    """
    allowed = list(allowed)
    files = [state for state in allowed if "sha256" in state]
    if seen.kind == "missing":
        return [] if len(files) < len(allowed) else ["missing"]
    if seen.kind == "other":
        return ["not a plain file"]
    found = []
    if seen.digest not in {state["sha256"] for state in files}:
        found.append("changed")
    mode, modes = f"{seen.mode:04o}", [state["mode"] for state in files]
    if mode not in modes:
        found.append(f"mode {mode} instead of {' or '.join(dict.fromkeys(modes))}")
    for what, number, lookup, name in (
        ("owner", seen.uid, ctx.system.uid, _user),
        ("group", seen.gid, ctx.system.gid, _group),
    ):
        names = list(dict.fromkeys(state[what] for state in files))
        if not any(_is(lookup, n, number) for n in names):
            found.append(f"{what} {name(number)} instead of {' or '.join(names)}")
    return found


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _is(lookup: Callable[[str], int], name: str, number: int) -> bool:
    if name.isdecimal():  # of an owner without a name
        return int(name) == number
    try:
        return lookup(name) == number
    except HostError:
        return False


def written(state: Mapping[str, Any]) -> bool:
    """Say whether this is a state in which a run of ours leaves a file."""
    return "sha256" in state and "before" not in state


@dataclass(frozen=True)
class Known:
    """Everything that this host remembers of paths."""

    records: Mapping[str, applied.Record]
    """By bundle name."""
    runs: Mapping[str, pending.Pending]
    """Those that did not come to their end, by bundle name."""
    accepted: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, ctx: Context) -> Known:
        """Read all of it; HostError for a record that is not readable."""
        return cls(
            {record.bundle.name: record for record in applied.records(ctx)},
            {name: pending.Pending.load(ctx, name) for name in pending.left(ctx)},
            accepted(ctx),
        )

    def recorded(self, path: str) -> list[Mapping[str, Any]]:
        """Return how bundles that were applied to their end left this path."""
        return [record.files[path] for record in self.records.values() if path in record.files]

    def about(self, path: str) -> list[Mapping[str, Any]]:
        """Return how runs that did not end were about to leave this path."""
        return [state for run in self.runs.values() for state in run.about.get(path, ())]

    def placed_elsewhere(self, path: str, bundles: Iterable[str]) -> bool:
        """Say whether a bundle besides these places this path, or was about to."""
        own = set(bundles)
        return any(path in record.files for name, record in self.records.items() if name not in own) or any(
            state != MISSING
            for name, run in self.runs.items()
            if name not in own
            for state in run.about.get(path, ())
        )

    def edits(self, ctx: Context, path: str, *wanted: Placement) -> list[str]:
        """Return in what a path is neither as we left it nor as it is wanted; empty when nobody edited it.

        With nothing wanted (it is to go), a missing path is as it should be.
        """
        recorded, about = self.recorded(path), self.about(path)
        if not recorded and not about:
            return []
        seen = look(ctx, path)
        if self.is_accepted(path, seen):
            return []
        if seen.kind == "missing" and (not wanted or not recorded):
            return []
        return differences(ctx, seen, [*recorded, *about, *(item.record() for item in wanted)])

    def drift(self, ctx: Context, path: str, seen: Seen) -> list[str]:
        """Return in what a path of ours is not as we left it, accepted or not."""
        return differences(ctx, seen, [*self.recorded(path), *self.about(path)])

    def is_accepted(self, path: str, seen: Seen) -> bool:
        """Say whether an operator accepted exactly this."""
        return path in self.accepted and seen.kind != "other" and self.accepted[path] == seen.state()


def accepted(ctx: Context) -> dict[str, Any]:
    """Return the accepted edits; empty when there are none."""
    try:
        return dict(json.loads(ctx.path(ACCEPTED).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as e:
        msg = f"{ACCEPTED} is not readable ({type(e).__name__}); remove it and accept again"
        raise HostError(msg) from None


def remember_accepted(ctx: Context, states: Mapping[str, Any]) -> None:
    """Make these the accepted edits; touches nothing when they are the same."""
    if not states:
        remove(ctx, ACCEPTED)
        return
    text = json.dumps(states, indent=1, sort_keys=True) + "\n"
    make_parents(ctx, ACCEPTED)
    replace(ctx, ACCEPTED, text.encode(), mode=0o600, owner=Owner.root(ctx))


def forget_accepted(ctx: Context, paths: Iterable[str]) -> None:
    """Forget what was accepted of these paths: they were written over, put back or removed."""
    had = accepted(ctx)
    kept = {path: state for path, state in had.items() if path not in set(paths)}
    if kept != had:
        remember_accepted(ctx, kept)
