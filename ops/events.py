"""What the engine's events say in the words of a site: host, step, state, change, failure.

Pure: events go in, facts come out; nothing is printed here. Inputs of resources (stdin among them) are never
kept, so no text made from this module can show one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ops.messages import CONTROL, plain, readable

COMMAND_TYPE = "command:remote:Command"
UNCHANGED = frozenset({"same", "read", "refresh"})
REPLACED_BY = "create-replacement"
REST_OF_REPLACING = frozenset({"replace", "delete-replaced", "discard-replaced"})
"""What the engine says of a resource after its replacement was created; nothing more happens on a host for it."""
FINAL_DIAGNOSTIC = re.compile(r"^(update|preview|destroy|refresh) failed$")
NAMED = frozenset(["files", "units", "tls", "secrets", "modules", "certificates"])
"""Parts of what is sent whose members' names say something to people."""
NAMES_SHOWN = 3


class State(StrEnum):
    """How far a step is."""

    RUNNING = "running"
    OK = "ok"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True)
class Place:
    """Where a resource belongs: a host and a step; host is None for what is no single host's."""

    host: str | None
    step: str

    def __str__(self) -> str:
        return f"{self.host}: {self.step}" if self.host else self.step


@dataclass(kw_only=True)
class Progress:
    """One resource during a run. Times are seconds of a monotonic clock."""

    place: Place
    urn: str
    operation: str
    state: State
    started: float
    ended: float | None = None
    keys: tuple[str, ...] = ()
    """The inputs that differ."""
    inside: tuple[str, ...] = ()
    """What differs inside what is sent, by name: ``files /etc/x``, ``inputs``. Never a value."""
    summary: Mapping[str, Any] | None = None
    """What the applier printed, when this was one of its commands."""
    said: str = ""
    """The last line of progress that the host told."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One line of progress from a step that runs."""

    place: Place
    line: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error with the place where it happened."""

    place: Place | None
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


News = Progress | Said | Failure | None
"""What one event changed, if people care."""


def urn_name(urn: str) -> tuple[str, str]:
    """Return type and name of a URN; the type is the last of the nested ones."""
    parts = urn.split("::", 3)
    if len(parts) != 4:  # noqa: PLR2004 -- urn:pulumi:stack::project::types::name
        return "", urn
    return parts[2].rsplit("$", 1)[-1], parts[3]


def place_of(urn: str, hosts: Iterable[str]) -> Place:
    """Return host and step of a resource named ``<host>-<step>``; the longest host name that fits wins."""
    _, name = urn_name(urn)
    for host in sorted(hosts, key=len, reverse=True):
        if name == host:
            return Place(host, "host")
        if name.startswith(f"{host}-"):
            return Place(host, name.removeprefix(f"{host}-"))
    return Place(None, name)


@dataclass
class Run:
    """Everything that a run's events said so far."""

    hosts: tuple[str, ...]
    clock: Callable[[], float] = time.monotonic
    steps: dict[str, Progress] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    finished: bool = False

    @property
    def changes(self) -> int:
        """How many resources the run changes or would change, those that only group others included."""
        if self.counts:
            return sum(n for op, n in self.counts.items() if op not in UNCHANGED)
        return sum(1 for s in self.steps.values() if s.operation not in UNCHANGED)

    def changed(self) -> list[Progress]:
        """Return the steps that changed or would, hosts in site order, steps in the order they began."""
        order = {host: n for n, host in enumerate(self.hosts)}
        return sorted(
            (s for s in self.steps.values() if s.operation not in UNCHANGED),
            key=lambda s: (order.get(s.place.host or "", len(order)), s.started),
        )

    @property
    def left_hosts_alone(self) -> bool:
        """True when steps ran and every one that says whether it changed something says no."""
        said = [s.summary["changed"] for s in self.changed() if s.summary is not None and "changed" in s.summary]
        return bool(said) and not any(said)

    def take(self, event: Any) -> News:
        """Take in one engine event; return the step or failure that it changed, if people care.

        ``event`` is a ``pulumi.automation.EngineEvent``; only its fields are used, so that this module starts
        without the SDK.
        """
        if (pre := event.resource_pre_event) is not None:
            return self._begin(pre.metadata)
        if (done := event.res_outputs_event) is not None:
            return self._end(done.metadata, State.OK)
        if (failed := event.res_op_failed_event) is not None:
            return self._end(failed.metadata, State.FAILED)
        if (said := event.diagnostic_event) is not None:
            return self._diagnostic(said)
        if (summary := event.summary_event) is not None:
            self.counts = {_name(op): n for op, n in (summary.resource_changes or {}).items()}
            self.finished = True
        return None

    def _begin(self, metadata: Any) -> Progress | None:
        kind, _ = urn_name(metadata.urn)
        operation = _name(metadata.op)
        if operation == REPLACED_BY:
            operation = "replace"
        elif operation in REST_OF_REPLACING and metadata.urn not in self.steps:
            return None
        if _is_bookkeeping(kind):
            return None
        known = self.steps.get(metadata.urn)
        if known is not None and operation in REST_OF_REPLACING:
            return None
        if known is not None and known.state is State.RUNNING:
            known.operation = operation if known.operation in UNCHANGED else known.operation
            return None
        step = Progress(
            place=place_of(metadata.urn, self.hosts),
            urn=metadata.urn,
            operation=operation,
            state=State.UNCHANGED if operation in UNCHANGED else State.RUNNING,
            started=self.clock(),
            keys=_changed_keys(metadata),
            inside=_inside(metadata),
        )
        self.steps[metadata.urn] = step
        return step

    def _end(self, metadata: Any, state: State) -> Progress | None:
        step = self.steps.get(metadata.urn)
        if step is None or (_name(metadata.op) in REST_OF_REPLACING and state is not State.FAILED):
            return None
        step.ended = self.clock()
        if step.state is State.RUNNING or state is State.FAILED:
            step.state = state
        step.keys = step.keys or _changed_keys(metadata)
        if state is State.OK and step.operation not in UNCHANGED:
            step.summary = _applier_summary(metadata)
        return step

    def _diagnostic(self, said: Any) -> Failure | Said | None:
        message = plain(said.message or "").strip()
        if said.severity.startswith("info"):
            return self._progress(said.urn, message)
        if said.severity == "warning" and message:
            self.warnings.append(message)
        if said.severity != "error" or not message or FINAL_DIAGNOSTIC.match(message):
            return None
        kind = urn_name(said.urn)[0] if said.urn else ""
        place = place_of(said.urn, self.hosts) if said.urn and kind != "pulumi:pulumi:Stack" else None
        failure = Failure(place=place, message=readable(message, *((place.host, place.step) if place else ())))
        if failure in self.failures:
            return None
        self.failures.append(failure)
        return failure

    def _progress(self, urn: str | None, message: str) -> Said | None:
        """Keep what a running step tells; an error's lines come this way too, and again with the failure."""
        step = self.steps.get(urn or "")
        if step is None or step.state is not State.RUNNING or not message:
            return None
        step.said = CONTROL.sub(" ", message.splitlines()[-1]).strip()
        return Said(place=step.place, line=step.said)


def _name(operation: Any) -> str:
    return str(getattr(operation, "value", operation))


def _is_bookkeeping(kind: str) -> bool:
    """Tell resources that only group or configure others: no work happens on a host for them."""
    return kind.startswith(("pulumi:", "keadb:")) or kind == ""


def _changed_keys(metadata: Any) -> tuple[str, ...]:
    keys = metadata.diffs or list(metadata.detailed_diff or {}) or metadata.keys or []
    return tuple(sorted({re.split(r"[.\[]", key, maxsplit=1)[0] for key in keys}))


def _inside(metadata: Any) -> tuple[str, ...]:
    """Return what differs between the JSON that was sent before and the one to be sent now, in names.

    Empty when one of them is not known or no JSON: a secret, or made from what another step answers.
    """
    old, new = (_sent(state) for state in (metadata.old, metadata.new))
    if old is None or new is None:
        return ()
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key in NAMED and isinstance(before, dict) and isinstance(after, dict):
            names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            found.append(f"{key} {' '.join(names)}" if len(names) <= NAMES_SHOWN else f"{key} ({len(names)})")
        else:
            found.append(key)
    return tuple(found)


def _sent(state: Any) -> dict[str, Any] | None:
    text = ((state.inputs if state is not None else None) or {}).get("stdin")
    try:
        sent = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return sent if isinstance(sent, dict) else None


def _applier_summary(metadata: Any) -> Mapping[str, Any] | None:
    """Return the applier's JSON summary from a finished command's outputs, None when it printed none."""
    outputs = (metadata.new.outputs if metadata.new is not None else None) or {}
    printed = outputs.get("stdout")
    if not isinstance(printed, str):
        return None
    try:
        summary = json.loads(printed)
    except ValueError:
        return None
    return summary if isinstance(summary, dict) else None
