"""The verb ``etcd-probe`` and the view of etcd for the status screen: what runs against what is declared.

Read-only, and needs no password: the member list comes from a peer port, the rest from each member's status.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hostkit import etcd_plan
from hostkit.errors import BadInput, HostError
from hostkit.etcd_client import CLIENT_TLS, Etcd, EtcdError, member_list, tls_context

if TYPE_CHECKING:
    import ssl

    from hostkit.context import Context
    from hostkit.etcd_plan import Member, Plan


SECONDS = 2.0
"""Limit of each question. A member without a quorum takes longer than that to say so: it counts as unhealthy."""


def main(ctx: Context, argv: list[str]) -> int:
    """Run the verb: the state as JSON on stdout; HostError naming every difference from what is declared."""
    if argv:
        msg = f"etcd-probe takes no arguments, given {argv}"
        raise BadInput(msg)
    etcd_plan.required(ctx)
    found = state(ctx)
    if found["problems"]:
        msg = "etcd: " + "; ".join(found["problems"])
        raise HostError(msg)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def state(ctx: Context) -> dict[str, Any]:
    """Return etcd as seen from this host; empty when it carries none.

    ``cluster``, ``declared`` (a number), ``leader`` (a name or None), ``problems`` (sentences; empty = as
    declared) and ``members``: each with ``name``, ``address``, ``id`` (hexadecimal), ``started``, ``learner``,
    ``healthy``, ``db_size`` and ``db_size_in_use`` (bytes, None when unknown) and ``alarms``.
    HostError only when this host's own certificates or plan can't be used.
    """
    plan = etcd_plan.load(ctx)
    if plan is None:
        return {}
    tls = tls_context(ctx, CLIENT_TLS)
    problems: list[str] = []
    # All at once: whoever asks for the status waits no longer than for the slowest of these.
    with ThreadPoolExecutor(max_workers=3 * len(plan.members)) as pool:
        lists = [pool.submit(_list, plan, m, tls) for m in (plan.me, *plan.peers)]
        asked = {
            m.name: (pool.submit(_health, plan, m, tls), pool.submit(_status, plan, m, tls)) for m in plan.members
        }
        known = _known([future.result() for future in lists], problems)
        views = {name: _view(health.result(), status.result()) for name, (health, status) in asked.items()}
    if known is not None:
        problems += _differences(plan, known)
    problems += [view["problem"] for view in views.values() if view["problem"]]
    problems += [f"{name} raises the alarm {alarm}" for name, view in views.items() for alarm in view["alarms"]]
    leader = _leader(plan, known or [], views, problems)
    return {
        "cluster": plan.cluster,
        "declared": len(plan.members),
        "leader": leader,
        "members": [_member(plan, entry, views) for entry in _sorted(plan, known or [])],
        "problems": problems,
    }


def _list(plan: Plan, member: Member, tls: ssl.SSLContext) -> list[dict[str, Any]] | str:
    try:
        return member_list(member, plan.peer_port, tls=tls, seconds=SECONDS)
    except EtcdError as e:
        return str(e)


def _health(plan: Plan, member: Member, tls: ssl.SSLContext) -> str:
    """Return what is wrong with a member, empty when nothing is."""
    return Etcd(member, plan.client_port, tls=tls, seconds=SECONDS).healthy()[1]


def _status(plan: Plan, member: Member, tls: ssl.SSLContext) -> dict[str, Any] | str:
    try:
        return Etcd(member, plan.client_port, tls=tls, seconds=SECONDS).status()
    except EtcdError as e:
        return str(e)


def _known(lists: list[list[dict[str, Any]] | str], problems: list[str]) -> list[dict[str, Any]] | None:
    """Return the member list of this host's own member if it runs, else of the first other one."""
    for found in lists:
        if not isinstance(found, str):
            return found
    problems.append("no member gave the member list: " + "; ".join(str(found) for found in lists))
    return None


def _view(problem: str, status: dict[str, Any] | str) -> dict[str, Any]:
    """Return what a member says of itself."""
    if isinstance(status, str):
        unknown: dict[str, Any] = {"leader": 0, "db_size": None, "db_size_in_use": None, "alarms": []}
        return {**unknown, "healthy": False, "problem": problem or status}
    errors = [str(error) for error in status.get("errors", ())]
    return {
        "leader": int(status.get("leader", 0)),
        "db_size": int(status.get("dbSize", 0)),
        "db_size_in_use": int(status.get("dbSizeInUse", 0)),
        "alarms": [alarm for alarm in ("CORRUPT", "NOSPACE") if any(alarm in error for error in errors)],
        "healthy": not problem,
        "problem": problem,
    }


def _sorted(plan: Plan, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort a member list as the site file does, strangers last."""
    order = {m.name: i for i, m in enumerate(plan.members)}

    def place(entry: dict[str, Any]) -> tuple[int, int]:
        member = _declared(plan, entry)
        return (len(order) if member is None else order[member.name], int(entry.get("id", 0)))

    return sorted(known, key=place)


def _declared(plan: Plan, entry: dict[str, Any]) -> Member | None:
    """Return which declared member an entry of the list is: its peer address says so."""
    return next((m for m in plan.members if plan.peer_url(m) in entry.get("peerURLs", ())), None)


def _differences(plan: Plan, known: list[dict[str, Any]]) -> list[str]:
    problems = []
    by_member = {m.name: entry for entry in known if (m := _declared(plan, entry)) is not None}
    for entry in known:
        if _declared(plan, entry) is None:
            shown = entry.get("name") or "a member that never started"
            urls = ", ".join(entry.get("peerURLs", ()))
            problems.append(
                f"{shown} ({_hex(entry)}, {urls}) is a member but not in the site file; nobody removes it by "
                f"themselves: etcdctl member remove {_hex(entry)} does (docs/troubleshooting.md)"
            )
    for member in plan.members:
        found = by_member.get(member.name)
        if found is None:
            problems.append(f"{member.name} is not a member")
        elif not found.get("clientURLs"):
            problems.append(f"{member.name} is a member that has not started yet")
        elif found.get("name") != member.name:
            problems.append(f"{member.name} calls itself {found.get('name')!r}")
        elif found.get("isLearner"):
            problems.append(f"{member.name} is a learner and has no vote yet")
    return problems


def _leader(
    plan: Plan, known: list[dict[str, Any]], views: dict[str, dict[str, Any]], problems: list[str]
) -> str | None:
    """Return the one leader that all answering members name; else say what is wrong."""
    # A member that was cut off may still name the old leader: it has its own problem in the list.
    named = {view["leader"] for view in views.values() if view["healthy"]}
    if len(named) != 1 or 0 in named:
        problems.append("there is no leader" if named <= {0} else "members name different leaders")
        return None
    entry = next((e for e in known if int(e.get("id", -1)) == next(iter(named))), None)
    member = None if entry is None else _declared(plan, entry)
    return member.name if member else None


def _member(plan: Plan, entry: dict[str, Any], views: dict[str, dict[str, Any]]) -> dict[str, Any]:
    member = _declared(plan, entry)
    view = views.get(member.name) if member else None
    return {
        "name": member.name if member else str(entry.get("name") or ""),
        "address": member.address if member else ", ".join(entry.get("peerURLs", ())),
        "id": _hex(entry),
        "started": bool(entry.get("clientURLs")),
        "learner": bool(entry.get("isLearner")),
        "healthy": bool(view and view["healthy"]),
        "db_size": view and view["db_size"],
        "db_size_in_use": view and view["db_size_in_use"],
        "alarms": view["alarms"] if view else [],
    }


def _hex(entry: dict[str, Any]) -> str:
    return f"{int(entry.get('id', 0)):x}"
