"""Brings the declared dynamic settings into force on the running cluster (verb ``patroni-converge``).

Finds the leader at run time, sends only differences (null for what went away), reads them back, waits until every
node has taken them over, restarts PostgreSQL node by node where that is due (``patroni_rolling``) and waits until the
standby streams. Refuses, before it changes anything, what needs a restart while the cluster is not healthy, and any
change while it is paused. Never fails over or switches over.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from hostkit import patroni_plan
from hostkit.errors import Refused
from hostkit.patroni_client import Rest
from hostkit.patroni_parameters import needs_restart
from hostkit.patroni_probe import look
from hostkit.patroni_rolling import restart_pending
from hostkit.patroni_wait import Loops, say, unhealthy, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context
    from hostkit.patroni_plan import Settings

HEALTH_SECONDS = 60.0
"""Limit for the cluster to be healthy before parameters are sent that need a restart."""
READ_SECONDS = 130.0
"""Limit for settings that were sent to be read back: two loops of the longest that a site file may have."""
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
    until(ctx, plan, "the cluster has a leader", lambda: _leaderless(plan, rest))
    member, live = rest.first("config")
    patch = difference({k: v for k, v in live.items() if k not in OPERATORS_KEYS}, plan.config)
    _refuse_paused(plan, rest, patch)
    _require_health(ctx, plan, rest, live, patch)
    if patch:
        for line in lines(patch, live):
            say(line)
        rest.patch_config(member, patch)
        # Patroni answers from what it last read of etcd, which may be a loop old.
        until(ctx, plan, "etcd has the settings", lambda: _left(plan, rest), seconds=READ_SECONDS)
        loops = Loops(rest)
        until(ctx, plan, "every node has taken over the settings", loops.missing)
    restarted = restart_pending(ctx, plan, rest)
    until(ctx, plan, "the cluster is healthy", lambda: unhealthy(plan, rest))
    return {"changed": bool(patch or restarted), "settings": lines(patch, live), "restarted": restarted}


def _left(plan: Settings, rest: Rest) -> str:
    _, after = rest.first("config")
    left = difference({k: v for k, v in after.items() if k not in OPERATORS_KEYS}, plan.config)
    return f"Patroni took the settings but etcd still differs in: {'; '.join(lines(left, after))}" if left else ""


def _leaderless(plan: Settings, rest: Rest) -> str:
    found = look(rest, plan.cluster)
    return "" if found["leader"] else "; ".join(found["problems"]) or "there is no leader"


def _refuse_paused(plan: Settings, rest: Rest, patch: Mapping[str, Any]) -> None:
    if look(rest, plan.cluster)["paused"]:
        what = f"; waiting: {', '.join(_names(patch))}" if patch else ""
        msg = (
            f"cluster {plan.cluster.scope} is paused: someone holds it, nothing was changed{what}. "
            f"End the pause (keadb resume) and run again"
        )
        raise Refused(msg)


def _require_health(
    ctx: Context, plan: Settings, rest: Rest, live: Mapping[str, Any], patch: Mapping[str, Any]
) -> None:
    """Before parameters are sent that PostgreSQL reads only when it starts: HostError unless restarts could begin.

    A parameter that the leader waits for already may be taken back or corrected in any state: a value that keeps the
    standby from starting must not stand in its own way.
    """
    now = (live.get("postgresql") or {}).get("parameters") or {}
    wanted = ((patch.get("postgresql") or {}).get("parameters")) or {}
    found = look(rest, plan.cluster)
    waits_for = {name for m in found["members"] if m["role"] == "leader" for name in m["pending_restart"]}
    names = [n for n in sorted(wanted) if needs_restart(n, now.get(n), wanted[n]) and n not in waits_for]
    if names:
        until(
            ctx,
            plan,
            f"a restart of PostgreSQL is possible, which {', '.join(names)} needs",
            lambda: unhealthy(plan, rest, restarts_are_due=True),
            seconds=HEALTH_SECONDS,
            then="; nothing was changed, none of the other settings either",
        )


def _names(patch: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the changed settings as dotted names, sorted."""
    names = []
    for name, value in patch.items():
        names += _names(value, f"{above}{name}.") if isinstance(value, dict) else [above + name]
    return sorted(names)


def lines(patch: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
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
