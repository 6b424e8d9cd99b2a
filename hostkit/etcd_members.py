"""Who is a member of etcd, who the site file declares, and who it ever declared.

What was declared is kept in etcd itself, under ``RECORD``, where only root reads and writes: it is there for any host
that is in charge, and goes where the data goes. A member that is in the record and not in the site file has left the
site; one that is in neither is a stranger, whom nobody touches.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hostkit import etcd_auth
from hostkit.errors import HostError
from hostkit.etcd_client import Etcd, EtcdError, member_list
from hostkit.etcd_plan import Member

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from hostkit.context import Context
    from hostkit.etcd_plan import Plan

Entry = dict[str, Any]
Record = dict[str, list[str]]
"""Peer addresses by the name of the host that was declared with them."""

RECORD = "/keadb/etcd-members"
SETTLING = "unhealthy cluster"
"""What etcd answers to a member change for some seconds after the one before."""
_POLL_SECONDS = 0.5


def entry_of(plan: Plan, member: Member, known: Sequence[Entry]) -> Entry | None:
    """Return a declared member's entry in a list of members: its peer address says which it is."""
    return next((e for e in known if plan.peer_url(member) in e.get("peerURLs", ())), None)


def member_of(plan: Plan, entry: Entry) -> Member | None:
    """Return which declared member an entry is, None for one of another address."""
    return next((m for m in plan.members if plan.peer_url(m) in entry.get("peerURLs", ())), None)


def moved_to(plan: Plan, entry: Entry, record: Mapping[str, Sequence[str]]) -> Member | None:
    """Return the declared member whose earlier address an entry has, None when it is nobody's."""
    if member_of(plan, entry) is not None:
        return None
    member = next((m for m in plan.members if m.name == entry.get("name")), None)
    return member if member and _recorded(entry, record.get(member.name, ())) else None


def has_left(plan: Plan, entry: Entry, record: Mapping[str, Sequence[str]]) -> bool:
    """Say whether an entry is a member that the site file once declared and no longer does."""
    if member_of(plan, entry) is not None or moved_to(plan, entry, record) is not None:
        return False
    return any(_recorded(entry, urls) for urls in record.values())


def _recorded(entry: Entry, urls: Sequence[str]) -> bool:
    return any(url in urls for url in entry.get("peerURLs", ()))


def shown(entry: Entry) -> str:
    """Return a name for people."""
    return str(entry.get("name") or ", ".join(entry.get("peerURLs", ())) or "?")


def located(plan: Plan, entry: Entry) -> Member:
    """Return where an entry's member is, declared or not: a host that moved is where it is declared now."""
    named = (m for m in plan.members if m.name == entry.get("name"))
    url = next(iter(entry.get("peerURLs", ())), "")
    return member_of(plan, entry) or next(named, None) or Member(shown(entry), urlsplit(url).hostname or "")


def healthy(plan: Plan, entry: Entry, tls: ssl.SSLContext) -> tuple[bool, str]:
    """Return whether the member of an entry votes and takes part in a quorum, and why not."""
    if not entry.get("clientURLs") or entry.get("isLearner"):
        return False, f"{located(plan, entry).name} has no vote yet"
    return Etcd(located(plan, entry), plan.client_port, tls=tls).healthy()


def in_the_way(
    plan: Plan,
    about: Entry | None,
    known: Sequence[Entry],
    tls: ssl.SSLContext,
    *,
    record: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Return why no member may be changed now: whatever is wrong with any declared one but ``about``, and strangers.

    Without a record only declared members are judged. One that has left the site may be anything: etcd itself refuses
    what would cost the quorum.
    """
    problems = []
    for entry in known:
        if about is not None and entry["id"] == about["id"]:
            continue
        if member_of(plan, entry) is not None or moved_to(plan, entry, record or {}) is not None:
            well, why = healthy(plan, entry, tls)
            problems += [] if well else [why]
        elif record is not None and not has_left(plan, entry, record):
            problems.append(f"{shown(entry)} is a member but not in the site file")
    return problems


def list_of_any(plan: Plan, among: Sequence[Member], tls: ssl.SSLContext) -> list[Entry]:
    """Return the members as the first of these that answers knows them; HostError when none does."""
    problems = []
    for member in among:
        try:
            return member_list(member, plan.peer_port, tls=tls)
        except EtcdError as e:
            problems.append(str(e))
    msg = "nobody gave the member list: " + "; ".join(problems)
    raise HostError(msg)


def leader(ctx: Context, plan: Plan, among: Sequence[Member], tls: ssl.SSLContext) -> tuple[Etcd, Entry]:
    """Return the leader's client port, logged in as root, and its entry; HostError when no leader is found."""
    for member in among:
        try:
            leads = int(Etcd(member, plan.client_port, tls=tls).status().get("leader", 0))
        except EtcdError:
            continue
        for entry in list_of_any(plan, [member], tls):
            if leads and int(entry["id"]) == leads:
                found = Etcd(located(plan, entry), plan.client_port, tls=tls)
                etcd_auth.log_in(ctx, found, wanted_by="etcd-form")
                return found, entry
    msg = "etcd has no leader that could be asked; members are only changed by a leader"
    raise HostError(msg)


def settled(ctx: Context, plan: Plan, etcd: Etcd, path: str, body: Entry, *, passing: str) -> None:
    """Call until etcd no longer answers with this passing reason."""
    deadline = ctx.system.monotonic() + plan.health_seconds
    while True:
        try:
            etcd.call(path, body)
        except EtcdError as e:
            if passing not in e.message or ctx.system.monotonic() > deadline:
                raise
            ctx.system.sleep(_POLL_SECONDS)
        else:
            return


def read(etcd: Etcd, key: str) -> str | None:
    """Return a key's value, None without it; as root, or without authentication."""
    found = etcd.call("/v3/kv/range", {"key": _encoded(key)}).get("kvs") or []
    return base64.b64decode(found[0].get("value", "")).decode() if found else None


def recorded(etcd: Etcd) -> Record:
    """Return what was ever declared, as far as it was not forgotten; nothing when nothing was."""
    text = read(etcd, RECORD)
    try:
        data = json.loads(text or "{}")
        return {str(name): [str(url) for url in urls] for name, urls in data.items()}
    except (ValueError, AttributeError, TypeError) as e:
        msg = f"etcd's key {RECORD} is not readable ({type(e).__name__}): nobody knows which members were declared"
        raise HostError(msg) from None


def remember(etcd: Etcd, plan: Plan) -> Record:
    """Record that the members in the plan are declared, beside what was before; must be done before any is added."""
    before = recorded(etcd)
    now = {name: list(urls) for name, urls in before.items()}
    for member in plan.members:
        urls = now.setdefault(member.name, [])
        if plan.peer_url(member) not in urls:
            urls.append(plan.peer_url(member))
    _write(etcd, before, now)
    return now


def forget(etcd: Etcd, plan: Plan, known: Sequence[Entry]) -> None:
    """Drop from the record what is neither declared nor a member any more."""
    before = recorded(etcd)
    held = {url for entry in known for url in entry.get("peerURLs", ())} | {plan.peer_url(m) for m in plan.members}
    now = {name: [url for url in urls if url in held] for name, urls in before.items()}
    _write(etcd, before, {name: urls for name, urls in now.items() if urls})


def _write(etcd: Etcd, before: Record, now: Record) -> None:
    if now != before:
        etcd.call("/v3/kv/put", {"key": _encoded(RECORD), "value": _encoded(json.dumps(now, sort_keys=True))})


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
