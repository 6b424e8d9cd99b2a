"""Hands the leadership over to the sync standby (verb ``patroni-switchover [--check] [--leader NAME]``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit import patroni_day2
from hostkit.errors import HostError
from hostkit.patroni_wait import say

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.patroni_day2 import Task

SWITCH_SECONDS = 120.0
"""Limit for Patroni's answer: it comes when the new leader leads."""


def main(ctx: Context, argv: list[str]) -> int:
    """Switch over, wait until the old leader is the sync standby, and print who leads."""
    return patroni_day2.run(ctx, "patroni-switchover", argv, words=(0, 0), plan=plan, act=act)


def plan(task: Task) -> list[str]:
    """Return what will happen; Refused unless the cluster is healthy."""
    leader = task.leader
    task.require_health()
    return [
        f"{leader.name} leads and stops PostgreSQL, {task.standby.name} (sync standby) becomes the leader",
        f"about 2 s without writes; then {leader.name} starts anew as the sync standby, about 15 s",
    ]


def act(task: Task) -> dict[str, Any]:
    """Do it; HostError when the leadership did not move, or health does not come back."""
    old, new = task.leader, task.standby
    say(f"{old.name} hands over to {new.name}")
    words = task.do(old, "/switchover", {"leader": old.name, "candidate": new.name}, seconds=SWITCH_SECONDS)
    led = task.elapsed()
    say(f"{words} in {led:.1f} s")
    task.until_healthy(f"{old.name} is the sync standby")
    answer = task.answer(leads_after_seconds=led)
    if answer["leader"] != new.name:
        msg = f"{answer['leader']} leads, not {new.name}, although Patroni said: {words}"
        raise HostError(msg)
    return answer
