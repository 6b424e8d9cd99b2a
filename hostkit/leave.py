"""The verb ``leave WHAT``: this host is in no site file any more; stop what it still runs for the cluster.

``database``: what clients go through, then Patroni with its PostgreSQL, refused where it leads. ``etcd``: what is
left of a member that the cluster has removed, refused while it is one. All of it is disabled, so that it does not
come back with the machine. Nothing is deleted: a host that is declared again goes on from its data.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from hostkit import etcd_plan, etcd_rejoin, lock, patroni_plan, units
from hostkit.errors import BadInput, Refused
from hostkit.patroni_client import Rest, RestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostkit.context import Context

STOP_SECONDS = 180.0
"""Limit for one stop: Patroni's unit allows PostgreSQL 120 s."""
_WAY = ("keepalived.service", "haproxy.service", "pgbouncer.service")
"""Clients are led elsewhere first."""
_ETCD_TIMER = "keadb-etcd-lead.timer"


def main(ctx: Context, argv: list[str]) -> int:
    """Stop it, and print what was stopped or disabled."""
    known = {"database": _database, "etcd": _etcd}
    if len(argv) != 1 or argv[0] not in known:
        msg = f"leave: given {argv}, allowed is one of {', '.join(known)}"
        raise BadInput(msg)
    with lock.held(ctx, f"leave {argv[0]}"):
        stopped = known[argv[0]](ctx)
    sys.stdout.write(json.dumps({"changed": bool(stopped), "stopped": stopped}) + "\n")
    return 0


def _database(ctx: Context) -> list[str]:
    plan = patroni_plan.form(ctx)
    if units.states(ctx, [plan.unit])[plan.unit].running:
        try:
            node = Rest(ctx, plan.cluster).node(plan.me)
        except RestError as e:
            msg = f"{plan.me.name} leaves the site file, and nobody knows whether it leads PostgreSQL: {e}"
            raise Refused(msg) from e
        if node.get("role") in {"primary", "master"}:
            msg = (
                f"{plan.me.name} leads PostgreSQL and is no longer in the site file: put it back, hand over with "
                "'keadb switchover', then take it out. Nothing was changed"
            )
            raise Refused(msg)
    return _stop(ctx, [*_WAY, plan.unit])


def _etcd(ctx: Context) -> list[str]:
    plan = etcd_plan.required(ctx)
    if units.states(ctx, [plan.unit])[plan.unit].running and not etcd_rejoin.removed(ctx, plan):
        msg = f"etcd on {plan.host} is a member still: it is only stopped when the cluster has removed it"
        raise Refused(msg)
    return _stop(ctx, [plan.unit, *([_ETCD_TIMER] if plan.leads else [])])


def _stop(ctx: Context, names: Sequence[str]) -> list[str]:
    there = {name: state for name, state in units.states(ctx, names).items() if state.load != "not-found"}
    done = [name for name, state in there.items() if state.active != "inactive" or state.file == "enabled"]
    for name in done:
        units.systemctl(ctx, "disable", "--", name)
        units.systemctl(ctx, "stop", "--", name, timeout=STOP_SECONDS)
    return done
