"""What the verbs that people ask for share: arguments, what must hold before anything is done, and the answer.

Each verb takes ``--check``: it then only says what would happen, and refuses what it would refuse. ``--leader NAME``
is the leader that whoever confirmed had seen: with another one by now, nothing is done.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit import lock, patroni_plan
from hostkit.errors import BadInput, HostError, Refused
from hostkit.patroni_client import Rest
from hostkit.patroni_probe import SYNC, look
from hostkit.patroni_wait import problems, unhealthy, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostkit.context import Context
    from hostkit.etcd_plan import Member
    from hostkit.patroni_plan import Settings

MOST_LAG = 16 << 20
"""Bytes that a sync standby may be behind: it has every acknowledged commit, but a handover waits for the rest."""


@dataclass
class Task:
    """One request on the control host, with what the cluster looked like when it began."""

    ctx: Context
    plan: Settings
    rest: Rest
    words: tuple[str, ...]
    check: bool
    expected: str | None

    def __post_init__(self) -> None:
        self.found = look(self.rest, self.plan.cluster)
        self._began = self.ctx.system.monotonic()

    @property
    def leader(self) -> Member:
        """Return the leader; Refused without one, or when it is another than the expected one."""
        name = self.found["leader"]
        if name is None:
            self.refuse("; ".join(self.found["problems"]) or "there is no leader")
        if self.expected not in {None, name}:
            self.refuse(f"{name} leads by now, not {self.expected}: look at it again")
        return self.member(name)

    @property
    def standby(self) -> Member:
        """Return the sync standby; Refused when there is none."""
        name = next((m["name"] for m in self.found["members"] if m["role"] == SYNC), None)
        if name is None:
            self.refuse("there is no synchronous standby")
        return self.member(name)

    def member(self, name: str | None) -> Member:
        """Return a declared member by its name or the end of it; BadInput otherwise."""
        members = self.plan.cluster.members
        for member in members:
            if name is not None and (member.name == name or member.name.endswith(f"-{name}")):
                return member
        msg = f"given {name!r}, allowed: {', '.join(m.name for m in members)}"
        raise BadInput(msg)

    def refuse(self, reason: str) -> None:
        """Raise Refused: nothing has been done."""
        msg = f"cluster {self.plan.cluster.scope}: {reason}; nothing was done"
        raise Refused(msg)

    def require_health(self, *, restarts_are_due: bool = False) -> None:
        """Refuse unless the cluster is as declared: healthy, not paused, its sync standby close behind."""
        found = look(self.rest, self.plan.cluster, restarts_are_due=restarts_are_due)
        said = problems(self.plan, found)
        said += [
            f"{m['name']} is {m['lag']} bytes behind"
            for m in found["members"]
            if m["role"] == SYNC and (m["lag"] or 0) > MOST_LAG
        ]
        if said:
            self.refuse("; ".join(said))
        self.found = found

    def until_healthy(self, goal: str, *, seconds: float | None = None) -> None:
        """Wait until the cluster is as declared."""
        until(self.ctx, self.plan, goal, lambda: unhealthy(self.plan, self.rest), seconds=seconds)

    def do(self, member: Member, path: str, body: dict[str, Any], *, seconds: float) -> str:
        """Have a node do something; return its words, or HostError with them."""
        status, words = self.rest.act(member, path, body, seconds=seconds)
        if not 200 <= status < 300:  # noqa: PLR2004 - the good ones of HTTP
            msg = f"Patroni on {member.name} answered {path} with status {status}: {words}"
            raise HostError(msg)
        return words

    def answer(self, *, changed: bool = True, **more: Any) -> dict[str, Any]:
        """Return the result: who leads now, and the seconds since the beginning."""
        now = look(self.rest, self.plan.cluster)
        return {
            "changed": changed,
            "cluster": self.plan.cluster.scope,
            "leader": now["leader"],
            "members": now["members"],
            "problems": now["problems"],
            "seconds": round(self.ctx.system.monotonic() - self._began, 1),
            **more,
        }

    def elapsed(self) -> float:
        """Return the seconds since the beginning."""
        return round(self.ctx.system.monotonic() - self._began, 1)


def run(
    ctx: Context,
    verb: str,
    argv: Sequence[str],
    *,
    words: tuple[int, int],
    plan: Callable[[Task], list[str]],
    act: Callable[[Task], dict[str, Any]],
) -> int:
    """Read the arguments, refuse what ``plan`` refuses, then do it (not with ``--check``); print the answer.

    ``plan`` returns in sentences what will happen. ``words`` is how many arguments there may be. While it acts, no
    bundle is applied on this host.
    """
    task = _task(ctx, verb, argv, words)
    if task.check:
        sentences = plan(task)
        _print({**task.answer(changed=False), "happens": sentences})
        return 0
    with lock.held(ctx, verb):
        plan(task)
        _print(act(task))
    return 0


def _task(ctx: Context, verb: str, argv: Sequence[str], words: tuple[int, int]) -> Task:
    rest, check, leader = [], False, None
    given = iter(argv)
    for word in given:
        if word == "--check":
            check = True
        elif word == "--leader":
            leader = next(given, None)
        else:
            rest.append(word)
    if not words[0] <= len(rest) <= words[1] or any(word.startswith("-") for word in rest):
        msg = f"{verb}: given {list(argv)}, allowed are {words[0]} to {words[1]} words, --check and --leader NAME"
        raise BadInput(msg)
    plan = patroni_plan.settings(ctx)
    return Task(ctx, plan, Rest(ctx, plan.cluster), tuple(rest), check, leader)


def _print(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, indent=1, sort_keys=True) + "\n")
    sys.stdout.flush()
