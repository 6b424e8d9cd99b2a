"""The record of one drill run, and of what a campaign was asked to do: plain data, to and from JSON. Pure.

A campaign is a folder: ``campaign.json`` (`Campaign`) and ``runs.jsonl``, one line (`Record`) a finished run. Times
are seconds since the run's start on the machine's monotonic clock, which all hosts of a lab share. Reading is strict:
a missing, unknown or wrongly typed value is a `RecordError` that names file and line. Writing to the folder is the
work of ``ops.drill_campaign``.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

FORMAT = 1
CAMPAIGN_FILE = "campaign.json"
RUNS_FILE = "runs.jsonl"
GAP_S = 0.3
"""Seconds without an acknowledgement from which on they are a gap."""

T = TypeVar("T")


class RecordError(Exception):
    """A record that cannot be read: where, which value, what is allowed."""


class What(StrEnum):
    """What an event is about."""

    FAULT = "fault"
    HEAL = "heal"
    ROLE = "role"
    """``value``: ``leader``, ``replica`` or ``gone`` (the node's own PostgreSQL gives no answer)."""
    VIP = "vip"
    """``host`` has the virtual address from now on; None: nobody has."""
    ETCD_LEADER = "etcd_leader"
    NOTE = "note"


class Verdict(StrEnum):
    """How a run is judged. Only ``WRONG`` fails anything."""

    RIGHT = "right"
    ABOVE_TARGET = "above target"
    """Nothing but a write gap longer than the fault's target."""
    WRONG = "wrong"
    """An id lost, two leaders, a manual step needed, never whole again, or reads stopped where they must go on."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Which host had which part; None where nobody had it."""

    leader: str | None
    sync_standby: str | None
    vip: str | None
    etcd_leader: str | None


@dataclass(frozen=True, kw_only=True)
class Phases:
    """When what happened, in seconds since the run's start."""

    fault: float
    heal: float | None
    """When the fault was taken back; None for a fault that heals itself."""
    whole: float | None
    """When leader, streaming sync standby, the way and the status agreed again; None: not within the limit."""
    end: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that was seen or done."""

    at: float
    host: str | None
    what: What
    value: str | None


@dataclass(frozen=True, kw_only=True)
class Served:
    """What one client (writer or reader) met."""

    attempts: int
    acknowledged: int
    failed: int
    gaps: tuple[tuple[float, float], ...]
    """From and to of every time without an acknowledgement that was longer than `GAP_S`."""
    longest_s: float
    longest_at_fault_s: float
    """Longest of the gaps that began before the heal (for a fault that heals itself: all)."""
    longest_at_heal_s: float
    """Longest of the gaps that began at the heal or later; 0 for a fault that heals itself."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished run."""

    format: int = FORMAT
    fault: str
    run: int
    """Which run of this fault with these parameters, from 1."""
    seed: int
    parameters: str
    """Name of the parameter set that was in force."""
    stack: str
    started: str
    """UTC, ISO 8601."""
    load: float
    """The machine's one-minute load average at the start: how quiet it was."""
    before: Places
    after: Places
    target: str | None
    """Host on which the fault was put; None for one that is not about one host."""
    phases: Phases
    events: tuple[Event, ...]
    write: Served
    read: Served
    lost: tuple[int, ...]
    """Ids acknowledged to the writer or a prober that are not in its table at the end, on whichever host."""
    two_leaders: int
    """Writes acknowledged by an old leader after a new one had acknowledged its first."""
    stopped_accepting_s: float | None
    """From the fault until the old leader acknowledged its last write; None: it never stopped."""
    rejoin_s: float | None
    """From heal (or fault) until whole; None: never whole again."""
    vip_moves: int
    manual_steps: int
    """1 when the site was not whole within 180 s of the heal: nobody but a person would end that."""
    target_s: float | None
    """Seconds that the write gap shall not exceed; None: no target."""
    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What was asked for. The same folder with another one is refused."""

    format: int = FORMAT
    stack: str
    seed: int
    faults: tuple[str, ...]
    """In the order of the command line; the order of the runs comes from the seed."""
    runs: int
    """Runs of each fault with each parameter set."""
    parameters: tuple[str, ...] = field(default=("site",))


def to_json(value: Record | Campaign) -> str:
    """Return the value as one line of JSON, keys in the order of the fields, times rounded to milliseconds."""
    return json.dumps(_plain(value), ensure_ascii=False)


def record_of(text: str, *, source: str, line: int) -> Record:
    """Return the record in one line of ``runs.jsonl``; RecordError names ``source`` and ``line``."""
    return _of(Record, text, f"{source}, line {line}")


def campaign_of(text: str, *, source: str) -> Campaign:
    """Return what ``campaign.json`` asks for; RecordError names ``source``."""
    return _of(Campaign, text, source)


def records_of(text: str, *, source: str) -> list[Record]:
    """Return every record of a ``runs.jsonl``.

    A last line without its end is a run that was cut off while it was written: it is left out.
    """
    whole, _newline, _cut_off = text.rpartition("\n")
    return [record_of(line, source=source, line=number) for number, line in enumerate(whole.splitlines(), 1)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def _of(kind: type[T], text: str, where: str) -> T:
    try:
        data = json.loads(text)
    except ValueError as error:
        msg = f"{where}: not JSON: {error}"
        raise RecordError(msg) from None
    found = data.get("format") if isinstance(data, dict) else None
    if isinstance(data, dict) and found != FORMAT:
        msg = f"{where}: format: given {json.dumps(found)}, allowed: {FORMAT}"
        raise RecordError(msg)
    made: T = _read(kind, data, where, "")
    return made


def _read(kind: Any, value: Any, where: str, path: str) -> Any:
    """Return ``value`` as ``kind``: a dataclass, an enumeration, a tuple, a union with None, or a plain type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _read(inner, value, where, path)
    if dataclasses.is_dataclass(kind):
        return _read_object(kind, value, where, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, path, value, "a list")
        many = arguments[-1] is Ellipsis
        if not many and len(value) != len(arguments):
            raise _wrong(where, path, value, f"{len(arguments)} values")
        kinds = [arguments[0]] * len(value) if many else arguments
        return tuple(_read(k, v, where, f"{path}[{n}]") for n, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if issubclass(kind, StrEnum):
        if value not in list(kind):
            raise _wrong(where, path, value, ", ".join(kind))
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise _wrong(where, path, value, {int: "a whole number", float: "a number", str: "text"}[kind])
    return value


def _read_object(kind: Any, value: Any, where: str, path: str) -> Any:
    kinds = typing.get_type_hints(kind)
    if not isinstance(value, dict):
        raise _wrong(where, path, value, f"an object with {', '.join(kinds)}")
    for name in value:
        if name not in kinds:
            msg = f"{where}: {_joined(path, name)}: unknown, allowed: {', '.join(kinds)}"
            raise RecordError(msg)
    for name in kinds:
        if name not in value:
            msg = f"{where}: {_joined(path, name)} is missing"
            raise RecordError(msg)
    return kind(**{name: _read(k, value[name], where, _joined(path, name)) for name, k in kinds.items()})


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _wrong(where: str, path: str, value: Any, allowed: str) -> RecordError:
    given = json.dumps(value, ensure_ascii=False)
    shown = given if len(given) <= 60 else given[:57] + "..."  # noqa: PLR2004 -- one line's worth
    return RecordError(f"{where}: {path or 'the whole'}: given {shown}, allowed: {allowed}")
