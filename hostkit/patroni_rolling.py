"""Restarts PostgreSQL node by node where that is due: one at a time, the others healthy.

It is due where Patroni says so (``pending_restart``), and where a host noted that its PostgreSQL is older than what
is installed (``patroni_outdated``). Both say after every step what is left, so a run that was cut anywhere is
continued by the next one. Standbys first, then the leader in place: that is a shorter gap for writes than handing
over (docs/decisions, the record on restarts). Where a hot-standby limit goes down, the leader
first: a standby keeps the leader's value until the leader has the lower one. Never switches over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit.errors import HostError
from hostkit.patroni_client import RestError
from hostkit.patroni_outdated import Notes
from hostkit.patroni_parameters import is_lowered_limit
from hostkit.patroni_probe import ask_all, look
from hostkit.patroni_wait import Loops, say, unhealthy, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context
    from hostkit.etcd_plan import Member
    from hostkit.patroni_client import Rest
    from hostkit.patroni_plan import Settings

RESTART_SECONDS = 300.0
"""Limit for Patroni's answer to a restart: a checkpoint, the shutdown and the start."""
MOST_RESTARTS = 3
"""Of one node in one run: limits up and down at once take a standby two."""
_OK = 200
_NOT_NOW = 503
CONTINUES = (
    ". What is left waits in Patroni (pending_restart): when the cause is gone, the next 'up' goes on from there"
)


def restart_pending(ctx: Context, plan: Settings, rest: Rest) -> list[str]:
    """Restart what waits for it until nothing does; return the nodes in the order of their restarts.

    HostError, with everything not yet restarted left as it is, when the cluster is or becomes unhealthy or paused,
    when etcd is not seen, or when a node still waits after its restarts.
    """
    done: list[str] = []
    notes = Notes(ctx, plan.cluster)
    if not _waiting(rest, notes):
        return done
    loops = Loops(rest)
    until(ctx, plan, "every node reads etcd", loops.missing, then=CONTINUES)
    while True:
        until(ctx, plan, _goal(done), lambda: unhealthy(plan, rest, restarts_are_due=True), then=CONTINUES)
        waiting = _waiting(rest, notes)
        if not waiting:
            notes.forget(done)
            return done
        leader = look(rest, plan.cluster)["leader"]
        name = chosen(waiting, leader)
        if done.count(name) >= MOST_RESTARTS:
            msg = (
                f"{name} was restarted {MOST_RESTARTS} times and still waits for a restart ({_named(waiting[name])})"
            )
            raise HostError(msg)
        member = next(m for m in rest.members if m.name == name)
        # Patroni's own reasons have values; of packages it knows nothing, and restarts only when told to in any case.
        always = None in waiting[name].values()
        restart(ctx, rest, member, _role(name, leader), waiting[name], always=always)
        done.append(name)


def chosen(waiting: Mapping[str, Mapping[str, Any]], leader: str | None) -> str:
    """Return which node is restarted next.

    A standby goes first, unless all it waits for are lowered limits that the leader still has to take over.
    """
    held = waiting.get(leader or "", {})
    for name, reasons in waiting.items():
        if name != leader and not (
            reasons and all(n in held and is_lowered_limit(n, why) for n, why in reasons.items())
        ):
            return name
    return leader if leader is not None and leader in waiting else next(iter(waiting))


def restart(
    ctx: Context, rest: Rest, member: Member, role: str, reasons: Mapping[str, Any], *, always: bool = False
) -> float:
    """Restart one node's PostgreSQL if it has that role and waits for a restart (or ``always``); return the seconds.

    The return does not mean that it is healthy. HostError with Patroni's words when it refused or failed.
    """
    say(f"restarting PostgreSQL on {member.name} ({role}{': ' if reasons else ''}{_named(reasons)})")
    began = ctx.system.monotonic()
    conditions = {"role": "primary" if role == "leader" else "replica"} | (
        {} if always else {"restart_pending": True}
    )
    try:
        status, words = rest.act(member, "/restart", conditions, seconds=RESTART_SECONDS)
    except RestError as e:
        say(f"{e}: looking at what became of it")
        return ctx.system.monotonic() - began
    seconds = ctx.system.monotonic() - began
    if status == _NOT_NOW and "conditions" in words:
        say(f"{member.name}: {words}: its role changed, or it was restarted already")
    elif status != _OK:
        said = f"Patroni answered with status {status}: {words}"
        msg = f"PostgreSQL on {member.name} was not restarted: {said}{CONTINUES}"
        raise HostError(msg)
    else:
        say(f"{member.name}: {words} in {seconds:.1f} s")
    return seconds


def _waiting(rest: Rest, notes: Notes) -> dict[str, dict[str, Any]]:
    """Return the nodes that wait for a restart, in order, with the reasons (empty when Patroni gave none)."""
    waiting = {}
    for name, node in ask_all(rest).items():
        outdated = notes.reasons(name, node)
        if outdated or node.get("pending_restart"):
            waiting[name] = {**(node.get("pending_restart_reason") or {}), **outdated}
    return waiting


def _role(name: str, leader: str | None) -> str:
    return "leader" if name == leader else "standby"


def _goal(done: list[str]) -> str:
    return f"the cluster is healthy again after the restart of {done[-1]}" if done else "restarts can begin"


def _named(reasons: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {why['old_value']} => {why['new_value']}" if isinstance(why, dict) and "old_value" in why else name
        for name, why in sorted(reasons.items())
    )
