"""Brings the declared dynamic settings into force on the running cluster (verb ``patroni-converge``).

Finds the leader at run time, sends only differences (null for what went away), reads them back and waits until every
node has taken them over and the standby streams. Refuses, before it changes anything, what needs a restart of
PostgreSQL, and any change while the cluster is paused. Never restarts, fails over or switches over.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from hostkit import patroni_plan
from hostkit.errors import HostError, Refused
from hostkit.patroni_client import Rest, RestError
from hostkit.patroni_parameters import needs_restart
from hostkit.patroni_probe import SYNC, ask_all, look

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hostkit.context import Context
    from hostkit.patroni_plan import Settings

POLL_SECONDS = 1.0
LOOPS = 2
"""Loops that each node must have begun after a change: the first one applied it to its end."""
OPERATORS_KEYS = frozenset(["pause"])
"""Top-level keys of the live configuration that are nobody's declaration."""


def main(ctx: Context, argv: list[str]) -> int:  # noqa: ARG001 - the signature of every verb
    """Converge and print what changed."""
    plan = patroni_plan.settings(ctx)
    rest = Rest(ctx, plan.cluster)
    summary = converge(ctx, plan, rest)
    json.dump(summary, sys.stdout, sort_keys=True)
    sys.stdout.write("\n")
    return 0


def difference(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that turns the live settings into the wanted ones; values are compared as Patroni does."""
    patch: dict[str, Any] = {name: None for name in live if name not in wanted}
    for name, value in wanted.items():
        now = live.get(name)
        if isinstance(value, dict) and isinstance(now, dict):
            inner = difference(now, value)
            if inner:
                patch[name] = inner
        elif name not in live or str(now) != str(value):
            patch[name] = value
    return patch


def converge(ctx: Context, plan: Settings, rest: Rest) -> dict[str, Any]:
    """Do the work of the verb; return the summary."""
    _until(ctx, plan, "the cluster has a leader", lambda: _leaderless(plan, rest))
    member, live = rest.first("config")
    patch = difference({k: v for k, v in live.items() if k not in OPERATORS_KEYS}, plan.config)
    _refuse_paused(plan, rest, patch)
    _refuse_restart(live, patch)
    if patch:
        for line in _lines(patch, live):
            _say(line)
        rest.patch_config(member, patch)
        _, after = rest.first("config")
        left = difference({k: v for k, v in after.items() if k not in OPERATORS_KEYS}, plan.config)
        if left:
            msg = f"Patroni took the settings but etcd still differs in: {'; '.join(_lines(left, after))}"
            raise HostError(msg)
        loops = _Loops(rest)
        _until(ctx, plan, "every node has taken over the settings", loops.missing)
        _refuse_pending(plan, rest)
    _until(ctx, plan, "the cluster is healthy", lambda: _unhealthy(plan, rest))
    return {"changed": bool(patch), "settings": _lines(patch, live)}


def _leaderless(plan: Settings, rest: Rest) -> str:
    found = look(rest, plan.cluster)
    return "" if found["leader"] else "; ".join(found["problems"]) or "there is no leader"


def _unhealthy(plan: Settings, rest: Rest) -> str:
    found = look(rest, plan.cluster)
    problems = list(found["problems"])
    if plan.wants_sync_standby and SYNC not in {m["role"] for m in found["members"]}:
        problems.append("there is no synchronous standby")
    return "; ".join(dict.fromkeys(problems))


def _refuse_paused(plan: Settings, rest: Rest, patch: Mapping[str, Any]) -> None:
    if look(rest, plan.cluster)["paused"]:
        what = f"; waiting: {', '.join(_names(patch))}" if patch else ""
        msg = (
            f"cluster {plan.cluster.scope} is paused: someone holds it, nothing was changed{what}. "
            f"End the pause (patronictl resume) and run again"
        )
        raise Refused(msg)


def _refuse_restart(live: Mapping[str, Any], patch: Mapping[str, Any]) -> None:
    """Refuse, by name, parameters that PostgreSQL reads only when it starts."""
    now = (live.get("postgresql") or {}).get("parameters") or {}
    wanted = ((patch.get("postgresql") or {}).get("parameters")) or {}
    held = [
        f"{name} ({_shown(now, name)} => {_shown(wanted, name)})"
        for name in sorted(wanted)
        if needs_restart(name, now.get(name), wanted[name])
    ]
    if held:
        msg = (
            f"a restart of PostgreSQL is needed for {', '.join(held)}; restarts are not made by this step, so "
            "nothing was changed, none of the other settings either. Take the value back in the site file"
        )
        raise Refused(msg)


def _refuse_pending(plan: Settings, rest: Rest) -> None:
    """Say so when, against what is known of the parameters, a node now waits for a restart."""
    waiting = [m for m in look(rest, plan.cluster)["members"] if m["pending_restart"]]
    if waiting:
        names = "; ".join(f"{m['name']}: {', '.join(m['pending_restart'])}" for m in waiting)
        msg = (
            f"the settings are in etcd, but PostgreSQL must restart to take them over ({names}); no restart was "
            "made. Take the value back in the site file, or restart the nodes one by one, the standby first"
        )
        raise HostError(msg)


class _Loops:
    """Counts the loops that each node's Patroni has begun since this was made, by when it last read etcd."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._last: dict[str, Any] = {m.name: None for m in rest.members}
        self._count = dict.fromkeys(self._last, -1)

    def missing(self) -> str:
        """Return which nodes have not begun enough loops yet; empty when all have."""
        for name, node in ask_all(self._rest).items():
            seen = node.get("dcs_last_seen")
            if seen is not None and seen != self._last[name]:
                self._last[name] = seen
                self._count[name] += 1
        late = sorted(name for name, count in self._count.items() if count < LOOPS)
        return f"waiting for {', '.join(late)}" if late else ""


def _until(ctx: Context, plan: Settings, goal: str, check: Callable[[], str]) -> None:
    """Wait until ``check`` has nothing more to say; HostError with its last words after the plan's time."""
    deadline = ctx.system.monotonic() + plan.seconds
    said = ""
    while True:
        try:
            reason = check()
        except RestError as e:
            reason = str(e)
        if not reason:
            return
        if reason != said:
            _say(f"until {goal}: {reason}")
            said = reason
        if ctx.system.monotonic() >= deadline:
            msg = f"cluster {plan.cluster.scope}, after {plan.seconds:g} s of waiting until {goal}: {reason}"
            raise HostError(msg)
        ctx.system.sleep(POLL_SECONDS)


def _names(patch: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the changed settings as dotted names, sorted."""
    names = []
    for name, value in patch.items():
        names += _names(value, f"{above}{name}.") if isinstance(value, dict) else [above + name]
    return sorted(names)


def _lines(patch: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    """Return each change as ``name: old => new``."""
    return [f"{name}: {_at(live, name)} => {_at(patch, name)}" for name in _names(patch)]


def _at(tree: Mapping[str, Any], dotted: str) -> str:
    """Return the value at a dotted name; parameter names may hold a dot themselves."""
    parts = dotted.split(".")
    for take in range(1, len(parts) + 1):
        key, rest = ".".join(parts[:take]), ".".join(parts[take:])
        if key in tree:
            value = tree[key]
            if not rest:
                return _shown(tree, key)
            return _at(value, rest) if isinstance(value, dict) else "(none)"
    return "(none)"


def _shown(tree: Mapping[str, Any], name: str) -> str:
    value = tree.get(name)
    return "(none)" if value is None else json.dumps(value, sort_keys=True)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
