"""A declared member whose data is gone, or that a running cluster does not know yet, comes in as a learner.

Two hosts have a part, both in their own ``etcd-form`` of the same run. The blank host meets peers whose etcd runs
(``hostkit.etcd_birth`` found that out), goes on answering on the peer port as blank and ``lost``, and starts once
every peer that runs knows it as added. The host with root's password (``plan.sets_up_auth``) finds it answering:
that proves that no etcd runs there, since etcd would hold that port. It removes the old entry, adds a new one as a
learner, and promotes it once it is in sync. When the blank host is the one with the password, it does both.

A member is only removed or added while all *other* members are declared ones, vote and are healthy, so a quorum is
never touched. What each does follows from the member list alone: cut anywhere, the next run goes on.
"""

from __future__ import annotations

import contextlib
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

from hostkit import etcd_birth, etcd_change, files
from hostkit.errors import HostError, Refused
from hostkit.etcd_client import CLIENT_TLS, Etcd, EtcdError, Unreachable, fetch, member_list, tls_context
from hostkit.etcd_members import SETTLING, entry_of, in_the_way, leader, list_of_any, remember, settled

if TYPE_CHECKING:
    import ssl

    from hostkit.context import Context
    from hostkit.etcd_members import Entry, Record
    from hostkit.etcd_plan import Member, Plan

TMPFILES = "/etc/tmpfiles.d/keadb-etcd.conf"
"""Makes the data directory with its owner."""
ASK_SECONDS = 90.0
"""How long a blank host asks to be taken in."""
SIGN_SECONDS = 15.0
"""How long a member that is neither healthy nor asks to come in is waited for, before others judge it."""
_POLL_SECONDS = 0.5
_LAGGING = "in sync with leader"
"""What etcd answers when a learner that is to be promoted is still behind."""


def added(entry: Entry | None) -> bool:
    """Say whether this entry waits for a blank host to join: added later (so without a name), never started."""
    return (
        entry is not None and not entry.get("clientURLs") and (bool(entry.get("isLearner")) or not entry.get("name"))
    )


def removed(ctx: Context, plan: Plan) -> bool:
    """Say whether this host's data is that of a member which the cluster has removed, by every peer that runs.

    A removal is final: that data votes nowhere any more. One that is half way in has data too, of its new life.
    """
    if ctx.path(plan.rejoin_file).exists():
        return False
    tls = tls_context(ctx, plan.tls)
    entries = []
    for peer in plan.peers:
        with contextlib.suppress(EtcdError):
            entries.append(entry_of(plan, plan.me, member_list(peer, plan.peer_port, tls=tls)))
    return bool(entries) and all(entry is None or added(entry) for entry in entries)


# The blank host's part


def await_added(ctx: Context, plan: Plan) -> None:
    """Return once every running peer waits for this blank host to join; ask for it until then.

    Refused, with nothing started, after ``ASK_SECONDS``, or when this host has the password and may not take
    itself in.
    """
    if plan.sets_up_auth:
        take_in(ctx, plan, plan.me)
    tls = tls_context(ctx, plan.tls)
    deadline = ctx.system.monotonic() + ASK_SECONDS
    sys.stderr.write(f"{plan.host} is blank and asks to be taken in by the running etcd\n")
    with etcd_birth.Listener(ctx, plan, lost=True):
        while True:
            answers = etcd_birth.ask_all(plan, tls)
            missing = [a.obstacle for a in answers.values() if a.obstacle is not None and not a.added]
            if any(a.added for a in answers.values()) and not missing:
                return
            if ctx.system.monotonic() > deadline:
                msg = (
                    f"etcd on {plan.host} is blank and was not taken in again within {ASK_SECONDS:g} s: "
                    f"{'; '.join(missing)}. The host with etcd's root password does that in its own step etcd-form, "
                    f"and says why it did not. Nothing was started on {plan.host}"
                )
                raise Refused(msg)
            ctx.system.sleep(etcd_birth.POLL_SECONDS)


def prepare(ctx: Context, plan: Plan) -> None:
    """Have the next start of the unit join the running cluster; the decision is on disk last.

    What an earlier etcd left without a log is put beside the data directory. HostError when no peer tells who
    the members are.
    """
    members = _initial_cluster(ctx, plan)
    _put_aside(ctx, plan)
    ctx.system.run(["systemd-tmpfiles", "--create", TMPFILES], timeout=30)
    etcd_birth.first_start(ctx, plan, "existing", members)
    text = f"KEADB_ETCD_CONFIG={plan.rejoin_config}\n".encode()
    files.replace(ctx, plan.rejoin_file, text, mode=0o600, owner=files.Owner.root(ctx))


def done(ctx: Context, plan: Plan) -> None:
    """Forget the decision once the member is healthy: from now on it starts like any other."""
    files.remove(ctx, plan.rejoin_file)
    files.remove(ctx, plan.rejoin_config)


def _initial_cluster(ctx: Context, plan: Plan) -> str:
    """Return all members as a peer knows them, this host among them: etcd compares it with what it finds."""
    tls = tls_context(ctx, CLIENT_TLS)
    known = list_of_any(plan, list(plan.peers), tls)
    if entry_of(plan, plan.me, known) is None:
        msg = f"{plan.host} is not among the members of the running etcd any more; run this again"
        raise HostError(msg)
    mine = plan.peer_url(plan.me)
    urls = [(plan.host if mine in e["peerURLs"] else str(e["name"]), url) for e in known for url in e["peerURLs"]]
    return ",".join(f"{name}={url}" for name, url in urls)


def _put_aside(ctx: Context, plan: Plan) -> None:
    left = ctx.path(f"{plan.data_dir}/member")
    if not left.exists():
        return
    number = 1
    while ctx.path(f"{plan.data_dir}.lost-{number}").exists():
        number += 1
    left.rename(ctx.path(f"{plan.data_dir}.lost-{number}"))
    sys.stderr.write(f"what was left of the lost member is kept in {plan.data_dir}.lost-{number}\n")


# The part of the host with root's password


def serve(ctx: Context, plan: Plan) -> list[str]:
    """Take in declared members that ask for it and promote learners, until all are in force; return what was done.

    One that was added is waited for as long as it may ask; one that is neither in force nor asking ``SIGN_SECONDS``,
    then it is left to ``etcd-probe``, which names it. Refused when one asks and may not come in, with the reason.
    """
    tls = tls_context(ctx, CLIENT_TLS)
    changed: list[str] = []
    quiet_since = ctx.system.monotonic()
    while True:
        known = member_list(plan.me, plan.peer_port, tls=tls)
        waiting = [m for m in plan.peers if not _in_force(plan, m, known, tls)]
        before = len(changed)
        for member in waiting:
            entry = entry_of(plan, member, known)
            if (
                entry is not None
                and entry.get("isLearner")
                and entry.get("clientURLs")
                and not _asks(ctx, plan, member)
            ):
                changed += promote(ctx, plan, member)
            elif not added(entry) and _asks(ctx, plan, member):
                changed += take_in(ctx, plan, member)
        now = ctx.system.monotonic()
        if len(changed) != before:
            quiet_since = now
        comes = any(added(entry_of(plan, m, known)) for m in waiting)
        if not waiting or now > quiet_since + (ASK_SECONDS if comes else SIGN_SECONDS):
            return changed
        ctx.system.sleep(_POLL_SECONDS)


def _in_force(plan: Plan, member: Member, known: list[Entry], tls: ssl.SSLContext) -> bool:
    entry = entry_of(plan, member, known)
    if entry is None or not entry.get("clientURLs") or entry.get("isLearner"):
        return False
    return Etcd(member, plan.client_port, tls=tls).healthy()[0]


def _asks(ctx: Context, plan: Plan, member: Member) -> bool:
    """Say whether that host answers on etcd's peer port that it is blank and has lost its place."""
    try:
        status, said = fetch(member, plan.peer_port, etcd_birth.PATH, tls=tls_context(ctx, plan.tls), seconds=2)
    except Unreachable:
        return False
    if status != HTTPStatus.OK or not isinstance(said, dict):
        return False
    agreed = (said.get("host"), said.get("cluster"), said.get("members"))
    return (
        agreed == (member.name, plan.cluster, etcd_birth.digest(plan))
        and said.get("blank") is True
        and said.get("lost") is True
    )


def take_in(ctx: Context, plan: Plan, member: Member) -> list[str]:
    """Remove what a running cluster still knows of a blank member, and add it as a learner; return what was done.

    The caller has made sure that no etcd runs there. Refused, with nothing changed, unless all other members are
    declared, vote and are healthy. HostError when etcd does not settle within ``plan.health_seconds``.
    """
    tls = tls_context(ctx, CLIENT_TLS)
    among = [m for m in plan.members if m.name != member.name]
    known = list_of_any(plan, among, tls)
    entry = entry_of(plan, member, known)
    if added(entry):
        return []
    problems = in_the_way(plan, entry, known, tls)
    if Etcd(member, plan.client_port, tls=tls).healthy()[0]:
        problems.append(f"{member.name} is healthy")
    record: Record = {}
    if not problems:
        record = remember(leader(ctx, plan, among, tls)[0], plan)
        problems = in_the_way(plan, entry, known, tls, record=record)
    if problems:
        msg = (
            f"etcd on {member.name} is blank and cannot be taken in again while the others are not all healthy: "
            f"{'; '.join(problems)}. No member was removed or added"
        )
        raise Refused(msg)
    said = etcd_change.retire(ctx, plan, record, among, dead_only=True)
    there, _ = leader(ctx, plan, among, tls)
    if entry is not None:
        there.call("/v3/cluster/member/remove", {"ID": str(entry["id"])})
        said.append(f"member {member.name} ({int(entry['id']):x}), whose data was lost, removed")
        sys.stderr.write(f"{said[-1]}\n")
    body = {"peerURLs": [plan.peer_url(member)], "isLearner": True}
    settled(ctx, plan, there, "/v3/cluster/member/add", body, passing=SETTLING)
    said.append(f"member {member.name} added as a learner")
    sys.stderr.write(f"{said[-1]}\n")
    return said


def promote(ctx: Context, plan: Plan, member: Member) -> list[str]:
    """Give a learner its vote once it has caught up; return what was done.

    HostError when it has not within ``plan.health_seconds``: the next run goes on.
    """
    tls = tls_context(ctx, CLIENT_TLS)
    among = [m for m in plan.members if m.name != member.name]
    entry = entry_of(plan, member, list_of_any(plan, among, tls))
    if entry is None or not entry.get("isLearner"):
        return []
    # A follower would pass it on without the login.
    there, _ = leader(ctx, plan, among, tls)
    settled(ctx, plan, there, "/v3/cluster/member/promote", {"ID": str(entry["id"])}, passing=_LAGGING)
    sys.stderr.write(f"member {member.name} has caught up and votes\n")
    return [f"member {member.name} promoted"]
