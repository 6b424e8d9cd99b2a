"""The verb ``patroni-probe`` and the view of the cluster for the status screen: what runs against what is declared.

Read-only, and needs no password: Patroni tells its state to anyone of the site's CA.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hostkit import patroni_plan
from hostkit.errors import HostError
from hostkit.patroni_client import Rest, RestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context
    from hostkit.patroni_plan import Cluster

SYNC = "sync_standby"
_HEALTHY = {"leader": ("running",), SYNC: ("streaming",), "replica": ("streaming",)}
"""States of a member that does what it is there for, by role."""


def main(ctx: Context, argv: list[str]) -> int:  # noqa: ARG001 - the signature of every verb
    """Print the state as JSON; HostError naming every difference from what is declared."""
    found = state(ctx)
    if not found:
        msg = "this host has no plan of a Patroni cluster: its bundles were never applied"
        raise HostError(msg)
    if found["problems"]:
        msg = f"cluster {found['cluster']}: " + "; ".join(found["problems"])
        raise HostError(msg)
    json.dump(found, sys.stdout)
    sys.stdout.write("\n")
    return 0


def state(ctx: Context) -> dict[str, Any]:
    """Return the cluster as seen from this host; empty when it has no plan of one.

    ``cluster``, ``declared`` (a number), ``leader`` (a name or None), ``paused``, ``synchronous`` (whether commits
    wait for a standby), ``system_identifier``, ``timeline`` (of the leader), ``problems`` (sentences; empty = as
    declared) and ``members``: each with ``name``, ``role`` (leader, sync_standby, replica), ``state``, ``timeline``,
    ``lag`` (bytes, 0 for the leader, None when unknown) and ``pending_restart`` (parameter names).
    """
    cluster = patroni_plan.any_cluster(ctx)
    if cluster is None:
        return {}
    return look(Rest(ctx, cluster), cluster)


def look(rest: Rest, cluster: Cluster, *, restarts_are_due: bool = False) -> dict[str, Any]:
    """Return the state (see ``state``) over a client that is already there; never RestError.

    With ``restarts_are_due`` a node that waits for a restart of PostgreSQL is no problem.
    """
    nodes = ask_all(rest)
    found: dict[str, Any] = {
        "cluster": cluster.scope,
        "declared": len(cluster.members),
        "leader": None,
        "paused": False,
        "synchronous": False,
        "system_identifier": None,
        "timeline": None,
        "members": [],
        "problems": [],
    }
    found["problems"] += [node["unreachable"] for node in nodes.values() if "unreachable" in node]
    try:
        _, view = rest.first("cluster")
        _, config = rest.first("config")
    except RestError as e:
        if not found["problems"]:
            found["problems"].append(str(e))
        return found
    found["paused"] = bool(view.get("pause"))
    found["synchronous"] = bool(config.get("synchronous_mode"))
    found["members"] = [_member(entry, nodes.get(entry["name"], {})) for entry in view.get("members", ())]
    found["leader"] = next((m["name"] for m in found["members"] if m["role"] == "leader"), None)
    found["timeline"] = next((m["timeline"] for m in found["members"] if m["role"] == "leader"), None)
    identifiers = {
        str(node["database_system_identifier"]) for node in nodes.values() if node.get("database_system_identifier")
    }
    found["system_identifier"] = min(identifiers) if identifiers else None
    found["problems"] += _differences(found, cluster, identifiers, restarts_are_due=restarts_are_due)
    return found


def ask_all(rest: Rest) -> Mapping[str, dict[str, Any]]:
    """Return what each declared node says of itself, by name; ``unreachable`` holds the reason of a silent one."""

    def ask(member: Any) -> dict[str, Any]:
        try:
            return rest.node(member)
        except RestError as e:
            return {"unreachable": str(e)}

    with ThreadPoolExecutor(max_workers=len(rest.members)) as pool:
        return dict(zip((m.name for m in rest.members), pool.map(ask, rest.members), strict=True))


def _member(entry: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    # What the node says itself is newer than what it last wrote into etcd, up to a loop ago.
    source = node if "state" in node else entry
    reasons = source.get("pending_restart_reason") or {}
    waits = bool(source.get("pending_restart"))
    lag = 0 if entry.get("role") == "leader" else entry.get("lag")
    return {
        "name": entry["name"],
        "role": entry.get("role"),
        "state": _own_state(entry, node),
        "timeline": entry.get("timeline"),
        "lag": lag if isinstance(lag, int) else None,
        "pending_restart": sorted(reasons) or (["?"] if waits else []),
    }


def _own_state(entry: Mapping[str, Any], node: Mapping[str, Any]) -> Any:
    """Return what the node itself says: what it wrote into etcd is up to a loop old, "streaming" after its end."""
    if "state" not in node:
        return entry.get("state")
    if node["state"] == "running" and entry.get("role") != "leader":
        return node.get("replication_state") or "running"
    return node["state"]


def _differences(
    found: Mapping[str, Any], cluster: Cluster, identifiers: set[str], *, restarts_are_due: bool
) -> list[str]:
    problems = []
    members = {m["name"]: m for m in found["members"]}
    if found["leader"] is None:
        problems.append("there is no leader")
    for name in (m.name for m in cluster.members):
        member = members.get(name)
        if member is None:
            problems.append(f"{name} is not a member")
        elif member["state"] not in _HEALTHY.get(member["role"], ()):
            problems.append(f"{name} is {member['role']}, {member['state']}")
        elif member["pending_restart"] and not restarts_are_due:
            names = ", ".join(member["pending_restart"])
            problems.append(f"{name} waits for a restart of PostgreSQL ({names})")
    problems += [
        f"{name} is a member but not in the site file"
        for name in members
        if name not in {m.name for m in cluster.members}
    ]
    if found["synchronous"] and SYNC not in {m["role"] for m in found["members"]}:
        problems.append("there is no synchronous standby")
    if len(identifiers) > 1:
        problems.append(f"the nodes hold different clusters ({', '.join(sorted(identifiers))})")
    if found["paused"]:
        problems.append("the cluster is paused")
    return problems
