"""Waiting for the cluster: one line when the reason changes, a time limit, and the last reason in the error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hostkit.errors import HostError
from hostkit.patroni_client import Rest, RestError
from hostkit.patroni_probe import SYNC, ask_all, look

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostkit.context import Context
    from hostkit.patroni_plan import Settings

POLL_SECONDS = 1.0
LOOPS = 2
"""Loops that each node must have begun after a change: the first one applied it to its end."""


def until(
    ctx: Context, plan: Settings, goal: str, check: Callable[[], str], *, seconds: float | None = None, then: str = ""
) -> None:
    """Wait until ``check`` has nothing more to say; HostError with its last words after ``seconds`` (the plan's).

    ``then`` ends the error: what was done so far, and what to do.
    """
    seconds = plan.seconds if seconds is None else seconds
    reason = in_vain(ctx, f"until {goal}", check, seconds=seconds)
    if reason:
        msg = f"cluster {plan.cluster.scope}, after {seconds:g} s of waiting until {goal}: {reason}{then}"
        raise HostError(msg)


def in_vain(
    ctx: Context,
    what: str,
    check: Callable[[], str],
    *,
    seconds: float,
    passing: tuple[type[HostError], ...] = (RestError,),
) -> str:
    """Wait until ``check`` has nothing more to say; return its last words after ``seconds``, empty when all is well.

    Tells each new reason once, after ``what``. A ``passing`` error of the check is a reason like others.
    """
    deadline = ctx.system.monotonic() + seconds
    said = ""
    while True:
        try:
            reason = check()
        except passing as e:
            reason = str(e)
        if not reason:
            return ""
        if reason != said:
            say(f"{what}: {reason}")
            said = reason
        if ctx.system.monotonic() >= deadline:
            return reason
        ctx.system.sleep(POLL_SECONDS)


def unhealthy(plan: Settings, rest: Rest, *, restarts_are_due: bool = False) -> str:
    """Return what keeps the cluster from being as declared; empty when nothing does."""
    return "; ".join(problems(plan, look(rest, plan.cluster, restarts_are_due=restarts_are_due)))


def problems(plan: Settings, found: dict[str, Any]) -> list[str]:
    """Return the problems of a state, a missing sync standby among them where one is declared."""
    said = list(found["problems"])
    if plan.wants_sync_standby and SYNC not in {m["role"] for m in found["members"]}:
        said.append("there is no synchronous standby")
    return list(dict.fromkeys(said))


class Loops:
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


def say(line: str) -> None:
    """Tell whoever watches."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
