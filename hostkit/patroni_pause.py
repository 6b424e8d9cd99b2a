"""Holds Patroni, or lets it go on (verb ``patroni-pause [--check] on|off``).

While it holds, nobody is failed over to and ``keadb up`` changes no setting: for work by hand only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit import patroni_day2
from hostkit.errors import BadInput
from hostkit.patroni_probe import ask_all
from hostkit.patroni_wait import say, until

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.patroni_day2 import Task

ON = "on"
OFF = "off"


def main(ctx: Context, argv: list[str]) -> int:
    """Pause or resume, wait until every node knows, and print the seconds."""
    return patroni_day2.run(ctx, "patroni-pause", argv, words=(1, 1), plan=plan, act=act)


def plan(task: Task) -> list[str]:
    """Return what will happen; a pause is refused unless the cluster is healthy, an end of it never."""
    wanted = _wanted(task)
    if task.found["paused"] == wanted:
        return [f"nothing: the cluster is {'paused' if wanted else 'not paused'} already"]
    if not wanted:
        return ["Patroni watches again: a leader that is gone is replaced, and due restarts can be made"]
    task.require_health()
    return [
        f"Patroni stops watching: when {task.leader.name} dies nobody takes over, until 'keadb resume'",
        "'keadb up' changes no setting of PostgreSQL meanwhile",
    ]


def act(task: Task) -> dict[str, Any]:
    """Do it and wait until every node knows; after the end of a pause also until the cluster is healthy."""
    wanted = _wanted(task)
    if task.found["paused"] == wanted:
        return task.answer(changed=False)
    member, _ = task.rest.first("config")
    task.rest.patch_config(member, {"pause": True if wanted else None})
    say(f"{'pause' if wanted else 'end of the pause'} is in etcd")

    def missing() -> str:
        late = [
            name
            for name, node in ask_all(task.rest).items()
            if "unreachable" in node or bool(node.get("pause")) != wanted
        ]
        return f"waiting for {', '.join(late)}" if late else ""

    until(task.ctx, task.plan, "every node knows", missing)
    if not wanted:
        task.until_healthy("the cluster is healthy")
    return task.answer()


def _wanted(task: Task) -> bool:
    if task.words[0] not in {ON, OFF}:
        msg = f"patroni-pause: given {task.words[0]!r}, allowed: on, off"
        raise BadInput(msg)
    return task.words[0] == ON
