"""The verb ``etcd-roll``: restart this host's etcd member if that is due, while all others are healthy.

It is due for files that were placed while it ran (``hostkit.due``), and for a package (``hostkit.software``).
Turns are the engine's: the command of one host waits for that of the host before it (the witness comes last), and
each ends only when its member is healthy again. So this looks at nothing but the moment: all *other* members must
be healthy right before the restart, else nothing is restarted here and what is due stays due for the next run. A
member that leads hands over first. Cut anywhere, the next run restarts it (at worst once more than needed).
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from hostkit import due, etcd_auth, etcd_form, etcd_plan, software, store
from hostkit.errors import BadInput, HostError, Refused
from hostkit.etcd_client import CLIENT_TLS, Etcd, EtcdError, member_list, tls_context

if TYPE_CHECKING:
    import ssl

    from hostkit.context import Context
    from hostkit.etcd_plan import Plan

_POLL_SECONDS = 0.5


def main(ctx: Context, argv: list[str]) -> int:
    """Run the verb; stdout gets one JSON object. Refused when the others do not become healthy in time."""
    if argv:
        msg = f"etcd-roll takes no arguments, given {argv}"
        raise BadInput(msg)
    plan = etcd_plan.required(ctx)
    reasons = due.due(ctx, plan.unit) + software.newer(ctx, software.ETCD)
    if reasons:
        _restart(ctx, plan, reasons)
    sys.stdout.write(json.dumps({"changed": bool(reasons), "restarted_for": list(reasons)}) + "\n")
    return 0


def _restart(ctx: Context, plan: Plan, reasons: tuple[str, ...]) -> None:
    what = f"{plan.unit} on {plan.host} is due for a restart ({', '.join(reasons)})"
    tls = tls_context(ctx, CLIENT_TLS)
    _await_others(ctx, plan, tls, what)
    said = _step_aside(ctx, plan, tls)
    sys.stderr.write(f"{what}: {f'{said}; ' if said else ''}restarting\n")
    try:
        # Ends when the member has joined the quorum (its unit says when it is ready).
        ctx.system.run(["systemctl", "restart", plan.unit], timeout=plan.health_seconds)
        etcd_form.await_health(ctx, plan)
    except HostError as e:
        msg = (
            f"{what}, was restarted and is not healthy since; no other member is restarted, and they go on without "
            f"it. Correct the site file and run this again: {e}"
        )
        raise HostError(msg) from e
    due.clear(ctx, plan.unit)
    if plan.leads:
        etcd_form.lead(ctx, plan)


def _await_others(ctx: Context, plan: Plan, tls: ssl.SSLContext, what: str) -> None:
    """Wait until all other members are healthy; Refused, naming those that are not, after the limit."""
    deadline = ctx.system.monotonic() + plan.health_seconds
    told: list[str] = []
    while True:
        problems = unhealthy(plan, tls)
        if not problems:
            return
        if ctx.system.monotonic() > deadline:
            msg = (
                f"{what}, but the others are not healthy: {'; '.join(problems)}. Nothing was restarted here; once "
                "they are healthy again, the next run continues"
            )
            raise Refused(msg)
        if problems != told:
            sys.stderr.write(f"waiting for {'; '.join(problems)}\n")
        told = problems
        ctx.system.sleep(_POLL_SECONDS)


def unhealthy(plan: Plan, tls: ssl.SSLContext) -> list[str]:
    """Return what is wrong with the other members: each must be declared a member, vote, and be healthy."""
    problems = []
    for peer in plan.peers:
        healthy, why = Etcd(peer, plan.client_port, tls=tls).healthy()
        if not healthy:
            problems.append(why)
    if problems:
        return problems
    try:
        known = member_list(plan.me, plan.peer_port, tls=tls)
    except EtcdError:
        return []  # this member is the broken one, which the restart may well mend
    voters = {url for m in known if not m.get("isLearner") for url in m.get("peerURLs", ())}
    return [f"{peer.name} has no vote" for peer in plan.peers if plan.peer_url(peer) not in voters]


def _step_aside(ctx: Context, plan: Plan, tls: ssl.SSLContext) -> str:
    """Hand leadership to another member if it is here; return what was done, in words.

    A member that is asked to end hands over by itself too. This does it before, so that the restart begins with
    a leader that is settled; when it can't be done, that is only said.
    """
    here = Etcd(plan.me, plan.client_port, tls=tls)
    try:
        status = here.status()
        mine = int(status["header"]["member_id"])
        if not plan.peers or int(status.get("leader", 0)) != mine:
            return ""
        known = member_list(plan.me, plan.peer_port, tls=tls)
        heirs = {plan.peer_url(p): p.name for p in plan.peers}
        target, heir = next(
            (int(m["id"]), heirs[url]) for m in known for url in m.get("peerURLs", ()) if url in heirs
        )
        if etcd_auth.ROOT_SECRET in store.secrets(ctx):
            etcd_auth.log_in(ctx, here, wanted_by="etcd-roll")
        here.call("/v3/maintenance/transfer-leadership", {"targetID": str(target)})
    except (HostError, StopIteration) as e:
        return f"leadership was not handed over before ({e})"
    return f"leadership handed to {heir}"
