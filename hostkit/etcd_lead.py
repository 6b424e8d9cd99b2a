"""The verb ``etcd-lead``: keep etcd's leadership on this host. A timer on the witness runs it.

When etcd's leader dies together with PostgreSQL's, the new etcd leader extends every lease, and the database is
back about 4 s later than it could be (measured). A leader that is changed by hand does the same, so it takes
leadership only while every member is healthy: one that does not answer may be PostgreSQL's leader, whose lease others
are waiting to see end (measured: the database back after 28 s instead of 21). That costs nothing: with one of three
members gone, one more ends the quorum, whoever leads. It does nothing while somebody holds it off (``HOLD``).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from hostkit import etcd_auth, etcd_plan
from hostkit.errors import BadInput, HostError
from hostkit.etcd_client import CLIENT_TLS, Etcd, EtcdError, member_list, tls_context

if TYPE_CHECKING:
    import ssl

    from hostkit.context import Context
    from hostkit.etcd_plan import Plan

HOLD = "/run/keadb/etcd-lead.hold"
"""While this file is younger than the seconds that it holds (none or nonsense: an hour), leadership stays."""
HOLD_SECONDS = 3600
_LONGEST_HOLD = 86400


def main(ctx: Context, argv: list[str]) -> int:
    """Run the verb. A cluster that can't be led now is no failure of the timer: it is said, exit code 0."""
    if argv:
        msg = f"etcd-lead takes no arguments, given {argv}"
        raise BadInput(msg)
    plan = etcd_plan.load(ctx)
    if plan is None or not plan.leads:
        sys.stderr.write("etcd's leadership does not belong to this host\n")
        return 0
    said = take(ctx, plan)
    if said:
        sys.stderr.write(f"{said}\n")
    return 0


def take(ctx: Context, plan: Plan, *, now: float | None = None) -> str:
    """Take leadership if it is elsewhere; return what was done or why not, empty when it is here already.

    EtcdError or HostError when etcd refused. ``now`` is the time of day in seconds since 1970.
    """
    left = _held(ctx, time.time() if now is None else now)
    if left > 0:
        return f"leadership is held where it is for another {left:.0f} s ({HOLD})"
    tls = tls_context(ctx, CLIENT_TLS)
    here = Etcd(plan.me, plan.client_port, tls=tls)
    healthy, why = here.healthy()
    if not healthy:
        return f"not taking leadership: {why}"
    try:
        status = here.status()
        known = member_list(plan.me, plan.peer_port, tls=tls)
    except EtcdError as e:
        return f"not taking leadership: {e}"
    my_id, leader_id = int(status["header"]["member_id"]), int(status.get("leader", 0))
    if leader_id == my_id:
        return ""
    leader = next(
        (
            m
            for m in plan.members
            for entry in known
            if int(entry.get("id", 0)) == leader_id and plan.peer_url(m) in entry.get("peerURLs", ())
        ),
        None,
    )
    why = "there is no leader, or it is none of the declared members" if leader is None else _ill(plan, tls)
    if leader is None or why:
        return f"not taking leadership: {why}"
    # Only the leader itself gives leadership away, and only to one who is as far as it is.
    there = Etcd(leader, plan.client_port, tls=tls)
    etcd_auth.log_in(ctx, there, wanted_by="etcd-lead")
    there.call("/v3/maintenance/transfer-leadership", {"targetID": str(my_id)})
    return f"took etcd's leadership from {leader.name}"


def _ill(plan: Plan, tls: ssl.SSLContext) -> str:
    """Return why some other member is not healthy; empty when all are."""
    for member in (m for m in plan.members if m != plan.me):
        healthy, why = Etcd(member, plan.client_port, tls=tls).healthy()
        if not healthy:
            return f"{why}; a new leader would begin every lease anew"
    return ""


def _held(ctx: Context, now: float) -> float:
    """Return for how many seconds more the hold counts; 0 when there is none."""
    path = ctx.path(HOLD)
    try:
        since = path.stat().st_mtime
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return 0.0
    except OSError as e:
        msg = f"cannot read {HOLD}: {e.strerror}"
        raise HostError(msg) from e
    seconds = min(int(text), _LONGEST_HOLD) if text.isdecimal() else HOLD_SECONDS
    return max(0.0, min(since + seconds - now, float(_LONGEST_HOLD)))
