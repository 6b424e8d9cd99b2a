"""Has a standby throw its data away and copy the leader's (verb ``patroni-reinit [--check] [--leader NAME] HOST``).

For a standby that cannot follow any more. Never the leader, and only from a leader that runs: the copy that is left
is never the one that is thrown away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit import patroni_day2
from hostkit.patroni_client import RestError
from hostkit.patroni_wait import say, until

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.patroni_day2 import Task

ANSWER_SECONDS = 30.0
BEGIN_SECONDS = 120.0
COPY_SECONDS = 1800.0
"""Limit for the base backup: 50 GB at a modest 30 MB/s."""


def main(ctx: Context, argv: list[str]) -> int:
    """Copy the standby anew, wait until it streams, and print the seconds."""
    return patroni_day2.run(ctx, "patroni-reinit", argv, words=(1, 1), plan=plan, act=act)


def plan(task: Task) -> list[str]:
    """Return what will happen; Refused for the leader, without a running leader, and while paused."""
    member, leader = task.member(task.words[0]), task.leader
    if member == leader:
        task.refuse(f"{member.name} leads: its data is what the others are copied from")
    if task.found["paused"]:
        task.refuse("the cluster is paused")
    state = next(m["state"] for m in task.found["members"] if m["name"] == leader.name)
    said = task.rest.node(leader)
    if state != "running" or said.get("role") != "primary" or said.get("state") != "running":
        task.refuse(f"the leader {leader.name} is {said.get('role')}, {said.get('state')}: it may hold the only copy")
    others = [m for m in task.found["members"] if m["name"] == member.name]
    now = f"{others[0]['role']}, {others[0]['state']}" if others else "not a member"
    return [
        f"{member.name} ({now}) deletes its copy of the database and copies that of {leader.name} (leader, running)",
        f"until it streams again {leader.name} holds the only copy, and writes do not wait for a standby",
    ]


def act(task: Task) -> dict[str, Any]:
    """Do it; HostError when Patroni refuses, or the standby does not stream in time."""
    member = task.member(task.words[0])
    before = task.rest.node(member).get("postmaster_start_time")
    words = task.do(member, "/reinitialize", {"force": True}, seconds=ANSWER_SECONDS)
    say(f"{member.name}: {words}")

    def begun() -> str:
        try:
            node = task.rest.node(member)
        except RestError:
            return ""
        same = node.get("state") == "running" and node.get("postmaster_start_time") == before
        return f"{member.name} still runs as before" if same else ""

    until(task.ctx, task.plan, f"{member.name} begins", begun, seconds=BEGIN_SECONDS)
    task.until_healthy(f"{member.name} streams again", seconds=COPY_SECONDS)
    return task.answer(reinitialised=member.name)
