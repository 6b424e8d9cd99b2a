"""What the cluster-level steps of etcd work from: the file that their bundle placed on the host.

It is written by ``components.etcd_cluster`` and read here; nothing in it is secret.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from hostkit.context import Context

PLAN = "/etc/keadb/cluster/etcd.json"
FORMAT = 1


@dataclass(frozen=True)
class Member:
    """A declared member: the host's name and its node address."""

    name: str
    address: str


@dataclass(frozen=True)
class Tls:
    """Paths of a certificate, its key and the CA that both sides must be signed by."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True)
class Plan:
    """The declared etcd cluster as this host sees it.

    ``birth_file`` records a decision to be born until the member is healthy; the unit's condition names it too.
    It, or ``rejoin_file`` where a member joins a running cluster, has the unit start with ``rejoin_config`` instead
    of ``config``: only there all members are named.
    ``sets_up_auth`` is true on exactly one host; ``leads`` on the one that etcd's leadership belongs to.
    ``patroni_user`` is Patroni's login in use, ``patroni_secret`` names its password, ``patroni_role`` its rights.
    ``birth_seconds`` limits the wait for peers, ``health_seconds`` the wait for a quorum.
    """

    cluster: str
    host: str
    unit: str
    data_dir: str
    birth_file: str
    config: str
    rejoin_config: str
    rejoin_file: str
    members: tuple[Member, ...]
    client_port: int
    peer_port: int
    tls: Tls
    sets_up_auth: bool
    leads: bool
    patroni_role: str
    patroni_user: str
    patroni_secret: str
    patroni_prefix: str
    birth_seconds: float
    health_seconds: float

    @property
    def me(self) -> Member:
        """Return this host's own entry."""
        return next(m for m in self.members if m.name == self.host)

    @property
    def peers(self) -> tuple[Member, ...]:
        """Return all other members, in the site file's order."""
        return tuple(m for m in self.members if m.name != self.host)

    def peer_url(self, member: Member) -> str:
        """Return the address under which etcd knows a member."""
        return f"https://{member.address}:{self.peer_port}"

    def has_data(self, ctx: Context) -> bool:
        """Say whether this host's etcd was ever born: etcd itself looks for its write-ahead log, so do we."""
        log: Path = ctx.path(f"{self.data_dir}/member/wal")
        return log.is_dir() and any(f.suffix == ".wal" for f in log.iterdir())


def load(ctx: Context) -> Plan | None:
    """Read the plan; None when this host has none, so carries no etcd. BadInput when it is not readable."""
    try:
        text = ctx.path(PLAN).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return _plan(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        msg = f"{PLAN} is not a plan of format {FORMAT} ({type(e).__name__}: {e}); apply the host's bundles again"
        raise BadInput(msg) from e


def required(ctx: Context) -> Plan:
    """Read the plan; BadInput when there is none."""
    plan = load(ctx)
    if plan is None:
        msg = f"{PLAN} does not exist: this host carries no etcd, or its bundle etcd-form was never applied"
        raise BadInput(msg)
    return plan


def _plan(data: dict[str, Any]) -> Plan:
    if data["format"] != FORMAT:
        msg = f"given is format {data['format']!r}"
        raise ValueError(msg)
    members = tuple(Member(m["name"], m["address"]) for m in data["members"])
    if data["host"] not in {m.name for m in members}:
        msg = f"{data['host']!r} is not among its members"
        raise ValueError(msg)
    return Plan(
        cluster=data["cluster"],
        host=data["host"],
        unit=data["unit"],
        data_dir=data["data_dir"],
        birth_file=data["birth_file"],
        config=data["config"],
        rejoin_config=data["rejoin_config"],
        rejoin_file=data["rejoin_file"],
        members=members,
        client_port=int(data["client_port"]),
        peer_port=int(data["peer_port"]),
        tls=Tls(**data["tls"]),
        sets_up_auth=bool(data["sets_up_auth"]),
        leads=bool(data["leads"]),
        patroni_role=data["patroni_role"],
        patroni_user=data["patroni_user"],
        patroni_secret=data["patroni_secret"],
        patroni_prefix=data["patroni_prefix"],
        birth_seconds=float(data["birth_seconds"]),
        health_seconds=float(data["health_seconds"]),
    )
