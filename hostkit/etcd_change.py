"""Bringing the members of a running etcd to what the site file declares: who left goes, who moved is told apart.

Run by the host with etcd's root password, in its own ``etcd-form``, around ``etcd_rejoin.serve``, which takes in who
is new: first the addresses of members that moved, then members that left and are dead, then who is new, and last
members that left and still run. One at a time, only while all declared members but the one concerned vote and are
healthy, and leadership is first moved to a member that stays. Everything follows from the member list and the record:
cut anywhere, the next run goes on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hostkit import etcd_auth, etcd_members
from hostkit.errors import HostError, Refused
from hostkit.etcd_client import CLIENT_TLS, Etcd, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from hostkit.context import Context
    from hostkit.etcd_members import Entry, Record
    from hostkit.etcd_plan import Member, Plan


def before(ctx: Context, plan: Plan) -> list[str]:
    """Do what comes before new members are taken in; return what was done. Refused with nothing changed."""
    etcd = _here(ctx, plan)
    record = etcd_members.remember(etcd, plan)
    return readdress(ctx, plan, record) + retire(ctx, plan, record, plan.members, dead_only=True)


def after(ctx: Context, plan: Plan) -> list[str]:
    """Remove who left the site, once all who are declared are in force; return what was done."""
    etcd = _here(ctx, plan)
    done = retire(ctx, plan, etcd_members.recorded(etcd), plan.members)
    etcd_members.forget(etcd, plan, etcd_members.list_of_any(plan, plan.members, tls_context(ctx, CLIENT_TLS)))
    return done


def readdress(ctx: Context, plan: Plan, record: Record) -> list[str]:
    """Tell etcd the new addresses of members whose host was declared with another one before.

    Refused, with nothing changed, unless all who did not move are declared, vote and are healthy: one that moved may
    be out of reach until the others know where it is, and to be told costs nobody a vote.
    """
    tls = tls_context(ctx, CLIENT_TLS)
    done = []
    for entry in etcd_members.list_of_any(plan, _me_first(plan), tls):
        member = etcd_members.moved_to(plan, entry, record)
        if member is None:
            continue
        known = etcd_members.list_of_any(plan, _me_first(plan), tls)
        settled = [e for e in known if etcd_members.moved_to(plan, e, record) is None]
        problems = etcd_members.in_the_way(plan, entry, settled, tls, record=record)
        if problems:
            msg = (
                f"etcd knows {member.name} by an earlier address, and may not be told the new one while the others "
                f"are not all healthy: {'; '.join(problems)}. Nothing was changed; change one address at a time"
            )
            raise Refused(msg)
        leader, _ = etcd_members.leader(ctx, plan, _me_first(plan), tls)
        body = {"ID": str(entry["id"]), "peerURLs": [plan.peer_url(member)]}
        etcd_members.settled(ctx, plan, leader, "/v3/cluster/member/update", body, passing=etcd_members.SETTLING)
        done.append(f"member {member.name} has the address {member.address}")
        sys.stderr.write(f"{done[-1]}\n")
    return done


def retire(
    ctx: Context, plan: Plan, record: Record, among: Sequence[Member], *, dead_only: bool = False
) -> list[str]:
    """Remove members that left the site, dead ones first; return what was done.

    ``among`` are declared members that can be asked. Refused, with no further one removed, while a declared member
    has no vote or is not healthy (``dead_only`` leaves that to a later call), and while one that left leads
    PostgreSQL.
    """
    tls = tls_context(ctx, CLIENT_TLS)
    done: list[str] = []
    while True:
        known = etcd_members.list_of_any(plan, among, tls)
        left = [entry for entry in known if etcd_members.has_left(plan, entry, record)]
        if not left:
            return done
        _refuse_leader(ctx, plan, left, among, tls)
        dead = [entry for entry in left if not etcd_members.healthy(plan, entry, tls)[0]]
        if dead_only and not dead:
            return done
        entry = (dead or left)[0]
        name = etcd_members.shown(entry)
        problems = etcd_members.in_the_way(plan, None, known, tls, record=record)
        if dead_only and problems:
            return done  # for later: who is new may only be half way in
        problems += [f"{m.name} is no member" for m in plan.members if not dead_only and _missing(plan, m, known)]
        if problems:
            msg = (
                f"{name} is a member of etcd and no longer in the site file, and may not be removed while the others "
                f"are not all healthy: {'; '.join(problems)}. It is a member still"
            )
            raise Refused(msg)
        leader = _leader_that_stays(ctx, plan, entry, known, among)
        body = {"ID": str(entry["id"])}
        etcd_members.settled(ctx, plan, leader, "/v3/cluster/member/remove", body, passing=etcd_members.SETTLING)
        done.append(f"member {name} ({int(entry['id']):x}), which left the site file, removed")
        sys.stderr.write(f"{done[-1]}\n")


def _missing(plan: Plan, member: Member, known: Sequence[Entry]) -> bool:
    return etcd_members.entry_of(plan, member, known) is None


def _refuse_leader(
    ctx: Context, plan: Plan, left: Sequence[Entry], among: Sequence[Member], tls: ssl.SSLContext
) -> None:
    """Refuse to take a host out that leads PostgreSQL: its data would be ahead of what is left."""
    etcd, _ = etcd_members.leader(ctx, plan, among, tls)
    leads = etcd_members.read(etcd, f"{plan.patroni_prefix}leader")
    if leads in {entry.get("name") for entry in left}:
        msg = (
            f"{leads} leads PostgreSQL and is no longer in the site file: put it back, hand over with 'keadb "
            "switchover --stack STACK ', then take it out. No member of etcd was removed"
        )
        raise Refused(msg)


def _leader_that_stays(
    ctx: Context, plan: Plan, leaving: Entry, known: Sequence[Entry], among: Sequence[Member]
) -> Etcd:
    """Return the leader, after leadership was moved away from a member that is to go."""
    tls = tls_context(ctx, CLIENT_TLS)
    leader, entry = etcd_members.leader(ctx, plan, among, tls)
    if entry["id"] != leaving["id"]:
        return leader
    heirs = [e for e in known if etcd_members.member_of(plan, e) and etcd_members.healthy(plan, e, tls)[0]]
    if not heirs:
        msg = f"{etcd_members.shown(leaving)} leads etcd and nobody who stays could take over; no member was removed"
        raise HostError(msg)
    heir = etcd_members.shown(heirs[0])
    leader.call("/v3/maintenance/transfer-leadership", {"targetID": str(heirs[0]["id"])})
    sys.stderr.write(f"etcd's leadership moved from {etcd_members.shown(leaving)} to {heir}\n")
    return etcd_members.leader(ctx, plan, among, tls)[0]


def _me_first(plan: Plan) -> list[Member]:
    return [plan.me, *plan.peers]


def _here(ctx: Context, plan: Plan) -> Etcd:
    """Return this host's member, logged in as root."""
    etcd = Etcd(plan.me, plan.client_port, tls=tls_context(ctx, CLIENT_TLS))
    etcd_auth.log_in(ctx, etcd, wanted_by="etcd-form")
    return etcd
