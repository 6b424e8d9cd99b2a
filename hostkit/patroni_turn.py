"""Restarts this node's Patroni where that is due (``due``, ``software``), in turn with the other database hosts.

``patroni-form`` runs on all of them at once; the turns come from what is there: a standby goes at once, a leader
waits until no other host says that it is due, hands over, and then restarts as a standby. Stopping Patroni stops its
PostgreSQL, so that every setting of the unit is read anew by both. Cut anywhere, the record stays and the next run
goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostkit import etcd_client, units
from hostkit.errors import HostError
from hostkit.patroni_client import RestError
from hostkit.patroni_dcs import DECLARED_SECONDS, Dcs
from hostkit.patroni_probe import SYNC, look
from hostkit.patroni_wait import in_vain, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostkit.context import Context
    from hostkit.etcd_plan import Member
    from hostkit.patroni_client import Rest
    from hostkit.patroni_plan import Form

DUE = "due"
DONE = "done"
TURN_SECONDS = 600.0
"""Limit for each wait: for health, for the others' turns, and for the sync standby to come back."""
GRACE_SECONDS = 10.0
"""How long a leader waits at least, so that a standby whose run began a little later goes first."""
SWITCH_SECONDS = 120.0
STOP_SECONDS = 180.0
"""Limit for systemctl: the unit's own limit for its stop is 120 s."""


def restart(ctx: Context, plan: Form, rest: Rest, reasons: tuple[str, ...]) -> None:
    """Restart the unit when its turn has come; HostError, with nothing stopped, when it does not come.

    The return does not mean that the node is healthy; ``finish`` waits for that.
    """
    say(f"{plan.unit} on {plan.me.name} is due for a restart ({', '.join(reasons)})")
    dcs = Dcs(ctx, plan.cluster)
    began = ctx.system.monotonic()

    def not_yet() -> str:
        found = look(rest, plan.cluster, restarts_are_due=True)
        if found["problems"]:
            return "; ".join(found["problems"])
        if found["leader"] != plan.me.name or not plan.others:
            return ""
        due = [m.name for m in plan.others if dcs.declared(m.name) == DUE]
        if due:
            return f"{', '.join(due)} restarts first"
        early = ctx.system.monotonic() - began < GRACE_SECONDS
        return "a standby that is due goes first" if early else ""

    _until(ctx, plan, dcs, "its turn has come", not_yet)
    if plan.others and look(rest, plan.cluster)["leader"] == plan.me.name:
        _hand_over(ctx, plan, rest, dcs)
    say(f"restarting {plan.unit} on {plan.me.name}")
    units.systemctl(ctx, "restart", "--", plan.unit, timeout=STOP_SECONDS)


def finish(ctx: Context, plan: Form, rest: Rest) -> None:
    """Wait until the cluster is healthy with the restarted node, then let the others have their turn."""
    dcs = Dcs(ctx, plan.cluster)

    def unhealthy() -> str:
        return "; ".join(look(rest, plan.cluster, restarts_are_due=True)["problems"])

    _until(ctx, plan, dcs, f"the cluster is healthy with {plan.me.name}", unhealthy)
    dcs.declare(plan.me.name, DONE)


def _hand_over(ctx: Context, plan: Form, rest: Rest, dcs: Dcs) -> None:
    to = _sync_standby(plan, rest)
    say(f"{plan.me.name} hands over to {to.name}")
    body = {"leader": plan.me.name, "candidate": to.name}
    status, words = rest.act(plan.me, "/switchover", body, seconds=SWITCH_SECONDS)
    say(f"{plan.me.name}: {words}")

    def still_leads() -> str:
        found = look(rest, plan.cluster, restarts_are_due=True)
        if found["leader"] == plan.me.name:
            return f"{plan.me.name} still leads (status {status}: {words})"
        return "; ".join(found["problems"])

    _until(ctx, plan, dcs, f"{to.name} leads and {plan.me.name} is its sync standby", still_leads)


def _sync_standby(plan: Form, rest: Rest) -> Member:
    names = [m["name"] for m in look(rest, plan.cluster)["members"] if m["role"] == SYNC]
    for member in plan.others:
        if member.name in names:
            return member
    msg = f"{plan.me.name} leads and no sync standby is there to hand over to; {plan.unit} was not restarted"
    raise HostError(msg)


def _until(ctx: Context, plan: Form, dcs: Dcs, goal: str, check: Callable[[], str]) -> None:
    """Wait, and keep saying in etcd that this host is due; HostError with the last reason after ``TURN_SECONDS``."""
    renew_at = 0.0

    def declared() -> str:
        nonlocal renew_at
        if ctx.system.monotonic() >= renew_at:
            dcs.declare(plan.me.name, DUE)
            renew_at = ctx.system.monotonic() + DECLARED_SECONDS / 3
        return check()

    passing = (RestError, etcd_client.EtcdError)
    reason = in_vain(ctx, f"{plan.me.name}, until {goal}", declared, seconds=TURN_SECONDS, passing=passing)
    if reason:
        msg = (
            f"{plan.unit} on {plan.me.name} is due for a restart; after {TURN_SECONDS:g} s of waiting until "
            f"{goal}: {reason}. The next run goes on from here"
        )
        raise HostError(msg)
