"""Named sets of timings, to compare ours with what others publish, and how a lab gets one and loses it again.

A set is brought into force as any change is: the keys in the lab's site file, then ``keadb up``. So what is compared
is in force the way a site would have it, ``preview`` and ``drift`` stay true meanwhile, and taking it back is the
same step again. What the site file said before is noted beside it first, so that a drill that was killed is put right
by the next one (`put_back`). Only for labs: no real site is ever changed here.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from keadb.site_model import Patroni, Proxy, VirtualAddress
from keadb.stackfile import SITE_KEY
from ops import sites
from ops.exits import CommandError, Exit
from ops.stacks import REPOSITORY, Stack

AS_IT_IS = "site"
"""No set: whatever the site file says."""
NOTE_FILE = "drill-parameters.json"
"""In the lab's folder while a set is in force: what the site file said before."""
NOTE_FORMAT = 1
UP_SECONDS = 900.0
"""Most time that one ``keadb up`` may take, and most time that an earlier one is waited for."""
LOCKED = "the stack is currently locked"
"""What the engine says while another ``up`` is at work: one that a killed drill left, which is not killed with it."""
RETRY_SECONDS = 5.0

NOTE = (
    "Only how soon a fault is found and acted on is theirs. What is checked, synchronous replication, the pooler, "
    "timeouts of connections and all else stay ours, so that the sets are compared on the same ground."
)

Up = Callable[[Stack], None]
"""Brings a lab's hosts to what its site file says; raises CommandError."""


@dataclass(frozen=True, kw_only=True)
class ParameterSet:
    """A set: its name, where its values come from, and the values by key of the site file."""

    name: str
    source: str
    values: Mapping[str, int]


KEYS = (
    "patroni.ttl",
    "patroni.loop_wait",
    "patroni.retry_timeout",
    "patroni.primary_start_timeout",
    "patroni.maximum_lag_on_failover_mb",
    "proxy.check.interval_ms",
    "proxy.check.fast_ms",
    "proxy.check.down_ms",
    "proxy.check.timeout_ms",
    "proxy.check.fall",
    "proxy.check.rise",
    "virtual_address.advert_ms",
)
"""What every set says, as keys of the site file."""


def _ours() -> dict[str, int]:
    """Return the defaults of the site model."""
    return _values_of(SimpleNamespace(patroni=Patroni(), proxy=Proxy(), virtual_address=VirtualAddress()))


def _values_of(site: Any) -> dict[str, int]:
    """Return what a site has in force or would have, defaults included."""
    return {key: functools.reduce(getattr, key.split("."), site) for key in KEYS}


def _of(*values: int) -> dict[str, int]:
    return dict(zip(KEYS, values, strict=True))


SETS = {
    made.name: made
    for made in (
        ParameterSet(name="keadb", source="the defaults of the site file", values=_ours()),
        # downinter is not set there, which HAProxy takes as inter.
        ParameterSet(
            name="autobase",
            source="Autobase 2.6.0, defaults of its common role and its templates",
            values=_of(30, 10, 10, 300, 1, 3000, 1000, 3000, 15000, 3, 4, 2000),
        ),
        ParameterSet(
            name="pigsty",
            source='Pigsty 4.5.0, RTO mode "norm"',
            values=_of(30, 5, 10, 25, 1, 2000, 1000, 2000, 3000, 3, 3, 1000),
        ),
    )
}
NAMES = (AS_IT_IS, *SETS)
"""What may be asked for."""


def check_names(names: tuple[str, ...]) -> None:
    """Raise CommandError for a set that is not known, or asked for twice."""
    for name in names:
        if name not in NAMES:
            msg = f"--parameters: given {name!r}, allowed: {', '.join(NAMES)}"
            raise CommandError(msg, Exit.USAGE)
        if names.count(name) > 1:
            msg = f"--parameters: {name} is given twice"
            raise CommandError(msg, Exit.USAGE)


def keadb_up(stack: Stack) -> None:
    """Run ``keadb up`` as a user would, after one that is at work; CommandError with what it said when it fails."""
    argv = [str(REPOSITORY / "bin" / "keadb"), "up", "--stack", stack.name, "--yes"]
    end = time.monotonic() + UP_SECONDS
    while True:
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=UP_SECONDS)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            msg = f"keadb up --stack {stack.name} did not end within {UP_SECONDS:.0f} s"
            raise CommandError(msg) from error
        if LOCKED not in done.stderr or time.monotonic() > end:
            break
        time.sleep(RETRY_SECONDS)
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-10:])
        msg = f"keadb up --stack {stack.name} failed:\n{said}"
        raise CommandError(msg)


@contextlib.contextmanager
def in_force(stack: Stack, name: str, *, up: Up = keadb_up) -> Iterator[None]:
    """Have a set in force for a while, and what was before afterwards.

    Killed meanwhile, nothing is put back until `put_back` is called: a campaign begins with it.
    """
    bring(stack, name, up=up)
    try:
        yield
    finally:
        put_back(stack, up=up)


def bring(stack: Stack, name: str, *, up: Up = keadb_up) -> bool:
    """Bring a set into force, whichever is now; return whether anything was done.

    What the site file said before the first of them is kept until `put_back`. CommandError when the stack is not a
    lab's, the set is not known or the site cannot be brought there.
    """
    _require_lab(stack)
    check_names((name,))
    if name == AS_IT_IS:
        return put_back(stack, up=up)
    note = _read_note(stack)
    values = SETS[name].values
    if note is None and _values(stack) == values:
        return False
    if note and note["set"] == name and note["in_force"] and _values(stack) == values:
        return False
    text = _text(stack)
    wanted = _dumped(_with(_parsed(text, stack), values))
    before = note or {"format": NOTE_FORMAT, "text": text, "before": _said(_parsed(text, stack))}
    now = {**before, "set": name, "digest": _digest(wanted), "in_force": False}
    _write_note(stack, now)
    _replace(stack.site_file, wanted)
    up(stack)
    _write_note(stack, {**now, "in_force": True})
    return True


def put_back(stack: Stack, *, up: Up = keadb_up) -> bool:
    """End what `bring` began, also in a process that was killed; return whether there was anything to end.

    The site file gets its bytes back, or, where somebody changed it meanwhile, only its keys of the sets.
    """
    note = _read_note(stack)
    if note is None:
        return False
    text = _text(stack)
    if _digest(text) == note["digest"]:
        _replace(stack.site_file, note["text"])
    elif text != note["text"]:
        data = _parsed(text, stack)
        if _said(data) != note["before"]:
            _replace(stack.site_file, _dumped(_with(data, note["before"], forget=True)))
    up(stack)
    _note_path(stack).unlink()
    return True


def _require_lab(stack: Stack) -> None:
    if not stack.is_lab:
        msg = f"stack {stack.name} is no lab: parameter sets are compared in labs only"
        raise CommandError(msg, Exit.USAGE)


def _values(stack: Stack) -> dict[str, int]:
    return _values_of(sites.load(stack))


def _said(data: Any) -> dict[str, Any]:
    """Return what the file itself says of the keys of the sets; what is left to its default is not in it."""
    found = {}
    for key in KEYS:
        at: Any = data["config"][SITE_KEY]
        for part in key.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        if at is not None:
            found[key] = at
    return found


def _with(data: Any, values: Mapping[str, Any], *, forget: bool = False) -> Any:
    """Return the document with these values; with ``forget`` without the other keys of the sets."""
    made = copy.deepcopy(data)
    for key in KEYS:
        *above, last = key.split(".")
        path = [made["config"][SITE_KEY]]
        for part in above:
            path.append(path[-1].setdefault(part, {}))
        if key in values:
            path[-1][last] = values[key]
        elif forget:
            path[-1].pop(last, None)
        for holder, part in reversed(list(zip(path, above, strict=False))):
            if not holder[part]:
                del holder[part]
    return made


def _parsed(text: str, stack: Stack) -> Any:
    data = yaml.safe_load(text)
    if not isinstance(data, dict) or not isinstance(data.get("config", {}).get(SITE_KEY), dict):
        msg = f"{stack.site_file} has no {SITE_KEY}: no parameter set can be brought into force"
        raise CommandError(msg)
    return data


class _Dumper(yaml.SafeDumper):
    """Plain YAML: equal values are written out, not referred to."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _dumped(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _text(stack: Stack) -> str:
    return stack.site_file.read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _note_path(stack: Stack) -> Path:
    return stack.work_dir / NOTE_FILE


def _read_note(stack: Stack) -> dict[str, Any] | None:
    path = _note_path(stack)
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        msg = f"{path} cannot be read: {error}"
        raise CommandError(msg) from error
    found = note.get("format") if isinstance(note, dict) else None
    if not isinstance(note, dict) or found != NOTE_FORMAT:
        msg = f"{path}: format: given {json.dumps(found)}, allowed: {NOTE_FORMAT}"
        raise CommandError(msg)
    return note


def _write_note(stack: Stack, note: Mapping[str, Any]) -> None:
    # It holds the site file's encrypted secrets: readable for nobody else, as that file is.
    _replace(_note_path(stack), json.dumps(note, indent=2, ensure_ascii=False) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, on the disk when this returns; its mode stays, a new one is its owner's alone."""
    beside = path.with_name(path.name + ".new")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.chmod(mode)
    beside.replace(path)
