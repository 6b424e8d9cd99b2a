"""Drift of what a cluster shares and no file holds: etcd's members, Patroni's settings and login there, Kea's roles.

Each is compared on one host of the site only, by the plan of the cluster-level bundle that brings it into force, and
only once that bundle was applied to its end. Reads only; nobody waits for a cluster that is busy or down: then the
item says that it could not be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit import etcd_plan, etcd_probe, kea_plan, kea_roles, patroni_converge, patroni_login, patroni_plan, store
from hostkit.errors import HostError
from hostkit.patroni_client import Rest
from hostkit.psql import Psql

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from hostkit.context import Context

_SQL_SECONDS = 10
Found = tuple[str, str]
"""Name, and what is other than declared, in words."""


def items(ctx: Context, applied: Collection[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield bundle and item (as ``check`` returns them) for everything that differs; ``applied`` names bundles."""
    compare: tuple[tuple[str, str, Callable[[Context], list[Found]]], ...] = (
        ("etcd-form", "member", _members),
        ("patroni-converge", "setting", _settings),
        ("patroni-login", "login", _etcd_login),
        ("kea-roles", "role", _roles),
    )
    for bundle, kind, look in compare:
        if bundle not in applied:
            continue
        try:
            found = look(ctx)
        except HostError as e:
            found = [(bundle, f"could not be compared: {e}")]
        yield from ((bundle, {"kind": kind, "name": name, "is": what}) for name, what in found)


def _members(ctx: Context) -> list[Found]:
    """Return the members that nobody declared; how the declared ones are is a matter of ``status``."""
    plan = etcd_plan.load(ctx)
    if plan is None or plan.host != plan.members[0].name:
        return []
    # Told by address: a member that was added and never started has no name, another may call itself like ours.
    declared = {member.address for member in plan.members}
    strangers = [m for m in etcd_probe.state(ctx)["members"] if m["address"] not in declared]
    return [(f"etcd member {m['name'] or m['id']}", f"at {m['address']}, is not declared") for m in strangers]


def _settings(ctx: Context) -> list[Found]:
    plan = patroni_plan.settings(ctx)
    _, live = Rest(ctx, plan.cluster).first("config")
    mine = {name: value for name, value in live.items() if name not in patroni_converge.OPERATORS_KEYS}
    patch = patroni_converge.difference(mine, plan.config)
    lines = (line.partition(": ") for line in patroni_converge.lines(patch, live))
    return [(name, f"(now => declared) {change}") for name, _, change in lines]


def _etcd_login(ctx: Context) -> list[Found]:
    """Return Patroni's other login at etcd if it is open: left by a rotation that was cut and taken back."""
    spare = patroni_login.left_open(ctx, patroni_plan.settings(ctx).cluster)
    return [(f"etcd user {spare}", "may log in, is not in use")] if spare else []


def _roles(ctx: Context) -> list[Found]:
    plan = kea_plan.load(ctx, kea_plan.ROLES_PLAN)
    passwords = {
        login.name: store.secret(ctx, login.secret, wanted_by="the comparison of Kea's logins")
        for login in kea_plan.logins(plan)
        if login.secret is not None
    }
    options = f"{kea_roles.UNLOGGED} -c statement_timeout={_SQL_SECONDS}s"
    server = Psql(
        ctx, program=plan["psql"], user=plan["superuser"], timeout=_SQL_SECONDS, environment={"PGOPTIONS": options}
    )
    leader, pending = kea_roles.look(server, plan, passwords)
    # A standby has what its leader has: once is enough.
    return [(what, "is due again") for what, _, _ in pending] if leader else []
