"""The verb ``etcd-form``: bring this host's etcd member into force, then (on one host) its users and rights.

Safe to run on all hosts at once, again, and after a cut anywhere. A running member is only restarted when its host
has another address and it does not listen there yet. A member with data is simply started, a blank one is born
together with its peers (``hostkit.etcd_birth``), or joins them as a learner when they run (``hostkit.etcd_rejoin``).
The host with root's password brings members that moved or left the site file up to date (``hostkit.etcd_change``).
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from hostkit import due, etcd_auth, etcd_birth, etcd_change, etcd_lead, etcd_plan, etcd_rejoin
from hostkit.errors import BadInput, HostError, Refused
from hostkit.etcd_client import CLIENT_TLS, Etcd, EtcdError, Unreachable, tls_context

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.etcd_plan import Plan

_SYSTEMCTL_SECONDS = 30.0
_POLL_SECONDS = 0.5
_LOG_LINES = 12
_RUNNING = "running"
_MOVED = "restarted at its new address"
_UP = frozenset(["active", "activating", "reloading"])


def main(ctx: Context, argv: list[str]) -> int:
    """Run the verb; stdout gets one JSON object saying how the member came up and what was set.

    What others do meanwhile is not waited for beyond a quorum: ``etcd-probe`` looks at all members.
    """
    if argv:
        msg = f"etcd-form takes no arguments, given {argv}"
        raise BadInput(msg)
    plan = etcd_plan.required(ctx)
    member = _bring_up(ctx, plan)
    if plan.sets_up_auth and ctx.path(plan.rejoin_file).exists():
        etcd_rejoin.promote(ctx, plan, plan.me)
    await_health(ctx, plan)
    if member == _MOVED:
        due.clear(ctx, plan.unit)
    etcd_birth.done(ctx, plan)
    etcd_rejoin.done(ctx, plan)
    changed: list[str] = []
    if plan.sets_up_auth:
        for step in (etcd_change.before, etcd_rejoin.serve, etcd_change.after, etcd_auth.ensure):
            changed += step(ctx, plan)
    if plan.leads:
        lead(ctx, plan)
    answer = {"member": member, "auth": changed, "changed": bool(changed) or member != _RUNNING}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _bring_up(ctx: Context, plan: Plan) -> str:
    """Start the member unless it runs; return ``running``, ``started``, ``born`` or ``joins``."""
    state = _state(ctx, plan)
    if state == "activating" and not plan.has_data(ctx):
        # It cannot get as far as its first write: it was told to join a cluster that no longer waits for it.
        ctx.system.run(["systemctl", "stop", plan.unit], timeout=_SYSTEMCTL_SECONDS)
    elif state in _UP:
        if not _elsewhere(ctx, plan, state):
            return _RUNNING
        # Not its turn in a row of restarts (etcd-roll): nobody reaches it as it is.
        ctx.system.run(["systemctl", "restart", "--no-block", plan.unit], timeout=_SYSTEMCTL_SECONDS)
        return _MOVED
    how = "started"
    # Data of a member that was removed (its host left the site file and is back) counts as none; it is put aside.
    if not plan.has_data(ctx) or etcd_rejoin.removed(ctx, plan):
        how = etcd_birth.await_birth(ctx, plan)
        if how == etcd_birth.JOINS:
            etcd_rejoin.await_added(ctx, plan)
            etcd_rejoin.prepare(ctx, plan)
    # The start of a member only ends with a quorum, for which the other hosts are needed: not waited for.
    ctx.system.run(["systemctl", "start", "--no-block", plan.unit], timeout=_SYSTEMCTL_SECONDS)
    return how


def _elsewhere(ctx: Context, plan: Plan, state: str) -> bool:
    """Say whether the member is not where it is declared, because it has yet to read that: its address changed.

    Refused when it runs and its peers are not healthy: by its old address it may be part of their quorum.
    """
    if not due.due(ctx, plan.unit):
        return False
    tls = tls_context(ctx, CLIENT_TLS)
    try:
        Etcd(plan.me, plan.client_port, tls=tls).status()
    except Unreachable:
        pass
    except EtcdError:
        return False
    else:
        return False
    problems = [why for peer in plan.peers for ok, why in [Etcd(peer, plan.client_port, tls=tls).healthy()] if not ok]
    if problems and state == "active":
        msg = (
            f"{plan.unit} on {plan.host} does not listen on {plan.me.address} yet and needs a restart for it, but "
            f"the others are not healthy: {'; '.join(problems)}. Nothing was restarted; the next run continues"
        )
        raise Refused(msg)
    return True


def _state(ctx: Context, plan: Plan) -> str:
    """Return systemd's word for the unit: ``active``, ``activating`` (also: being restarted), ``inactive`` ..."""
    answer = ctx.system.run(["systemctl", "is-active", plan.unit], timeout=_SYSTEMCTL_SECONDS, check=False)
    return answer.stdout.strip()


def await_health(ctx: Context, plan: Plan) -> None:
    """Wait until this member takes part in a quorum; HostError with the reason and the unit's last lines."""
    etcd = Etcd(plan.me, plan.client_port, tls=tls_context(ctx, CLIENT_TLS))
    deadline = ctx.system.monotonic() + plan.health_seconds
    while True:
        healthy, why = etcd.healthy()
        if healthy:
            return
        if ctx.system.monotonic() > deadline:
            break
        ctx.system.sleep(_POLL_SECONDS)
    log = ctx.system.run(
        ["journalctl", "--unit", plan.unit, "--lines", str(_LOG_LINES), "--output", "cat", "--no-pager"],
        timeout=_SYSTEMCTL_SECONDS,
        check=False,
    )
    msg = (
        f"etcd on {plan.host} has no quorum after {plan.health_seconds:g} s ({why}); of {len(plan.members)} "
        f"members more than half must run. Last lines of {plan.unit}:\n{log.stdout.strip() or '(none)'}"
    )
    raise HostError(msg)


def lead(ctx: Context, plan: Plan) -> None:
    """Move leadership here at once; the timer goes on trying, so a failure is only said."""
    try:
        said = etcd_lead.take(ctx, plan)
    except HostError as e:
        said = f"etcd's leadership was not moved yet: {e}"
    if said:
        sys.stderr.write(f"{said}\n")
