"""Restarts PostgreSQL (verb ``patroni-restart [--check] [--leader NAME] [HOST]``): one node, or all, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit import patroni_day2, patroni_rolling
from hostkit.patroni_wait import unhealthy, until

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.etcd_plan import Member
    from hostkit.patroni_day2 import Task


def main(ctx: Context, argv: list[str]) -> int:
    """Restart one node, or all of them (without HOST), the leader last; print the seconds that each took."""
    return patroni_day2.run(ctx, "patroni-restart", argv, words=(0, 1), plan=plan, act=act)


def plan(task: Task) -> list[str]:
    """Return what will happen; Refused unless the cluster is healthy (restarts may be due)."""
    leader = task.leader
    task.require_health(restarts_are_due=True)
    return [
        f"PostgreSQL on {m.name} ({'leader' if m == leader else 'standby'}) restarts"
        + (", in place: about 1 s without writes" if m == leader else ", no write waits for it")
        for m in _nodes(task)
    ]


def act(task: Task) -> dict[str, Any]:
    """Do it, each node when the one before is healthy again; HostError when that does not come."""
    took: dict[str, float] = {}
    leader = task.leader
    for member in _nodes(task):
        role = "leader" if member == leader else "standby"
        took[member.name] = round(patroni_rolling.restart(task.ctx, task.rest, member, role, {}, always=True), 1)
        until(
            task.ctx,
            task.plan,
            f"the cluster is healthy again after the restart of {member.name}",
            lambda: unhealthy(task.plan, task.rest, restarts_are_due=True),
        )
    if not task.words:
        # A lowered limit that was due: the standby took it over only after its leader.
        patroni_rolling.restart_pending(task.ctx, task.plan, task.rest)
    return task.answer(restarted=list(took), restart_seconds=took)


def _nodes(task: Task) -> list[Member]:
    """Return the nodes in the order of their restarts, the leader last."""
    if task.words:
        return [task.member(task.words[0])]
    leader = task.leader
    return [*(m for m in task.plan.cluster.members if m != leader), leader]
