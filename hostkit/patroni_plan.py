"""What the cluster-level steps of Patroni work from: files that their bundles placed on the host.

Written by ``components.postgres_cluster`` and read here; nothing in them is secret.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit.errors import BadInput
from hostkit.etcd_plan import Member

if TYPE_CHECKING:
    from hostkit.context import Context

PLAN = "/etc/keadb/cluster/patroni.json"
FORM_PLAN = "/etc/keadb/cluster/patroni-form.json"
FORMAT = 1


@dataclass(frozen=True)
class EtcdLogin:
    """Patroni's login at etcd: user, name of the secret that holds its password, and the pair's other user."""

    user: str
    secret: str
    spare: str


@dataclass(frozen=True)
class Cluster:
    """The declared cluster: its name, its database hosts in order of preference, and the ports of its services.

    ``etcd`` lists the hosts that carry etcd; ``etcd_login`` is Patroni's login there.
    """

    scope: str
    namespace: str
    members: tuple[Member, ...]
    rest_port: int
    etcd: tuple[Member, ...]
    etcd_port: int
    etcd_login: EtcdLogin

    @property
    def prefix(self) -> str:
        """Return where Patroni keeps this cluster in etcd."""
        return f"{self.namespace}{self.scope}/"


@dataclass(frozen=True)
class Settings:
    """The control host's plan: the declared dynamic configuration, and whether commits wait for a standby.

    ``seconds`` limits each wait of converging.
    """

    cluster: Cluster
    config: dict[str, Any]
    wants_sync_standby: bool
    seconds: float


@dataclass(frozen=True)
class Form:
    """A database host's plan. ``first`` is true on the one host that may be born as the leader.

    The unit starts only where one of two files is: ``start_once``, gone after a power cut, and ``start_always``, made
    when this node ran for the first time. ``certificate`` is the file that Patroni's REST API shows to its clients.
    ``birth_seconds`` limits the wait for the others at birth, ``copy_seconds`` the wait until this node runs.
    """

    cluster: Cluster
    me: Member
    unit: str
    certificate: str
    data_dir: str
    start_once: str
    start_always: str
    first: bool
    birth_seconds: float
    copy_seconds: float

    @property
    def others(self) -> tuple[Member, ...]:
        """Return the other database hosts, in order."""
        return tuple(m for m in self.cluster.members if m != self.me)

    def has_data(self, ctx: Context) -> bool:
        """Say whether there is anything in the data directory, a whole database cluster or the beginning of one."""
        folder = ctx.path(self.data_dir)
        return folder.is_dir() and any(folder.iterdir())


def settings(ctx: Context) -> Settings:
    """Read the control host's plan; BadInput when there is none or it is not readable."""
    data = _read(ctx, PLAN)
    try:
        return Settings(
            cluster=_cluster(data),
            config=dict(data["config"]),
            wants_sync_standby=bool(data["wants_sync_standby"]),
            seconds=float(data["seconds"]),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise _unreadable(PLAN, e) from e


def form(ctx: Context) -> Form:
    """Read a database host's plan; BadInput when there is none or it is not readable."""
    data = _read(ctx, FORM_PLAN)
    try:
        cluster = _cluster(data)
        return Form(
            cluster=cluster,
            me=next(m for m in cluster.members if m.name == data["host"]),
            unit=data["unit"],
            certificate=data["certificate"],
            data_dir=data["data_dir"],
            start_once=data["start_once"],
            start_always=data["start_always"],
            first=bool(data["first"]),
            birth_seconds=float(data["birth_seconds"]),
            copy_seconds=float(data["copy_seconds"]),
        )
    except (KeyError, TypeError, ValueError, StopIteration) as e:
        raise _unreadable(FORM_PLAN, e) from e


def any_cluster(ctx: Context) -> Cluster | None:
    """Return the cluster as this host's plan has it, the database host's plan first; None without a plan."""
    if ctx.path(FORM_PLAN).exists():
        return form(ctx).cluster
    return settings(ctx).cluster if ctx.path(PLAN).exists() else None


def _read(ctx: Context, path: str) -> dict[str, Any]:
    try:
        data = json.loads(ctx.path(path).read_text(encoding="utf-8"))
        given = data["format"]
    except FileNotFoundError:
        msg = f"{path} does not exist: the bundle that places it was never applied to this host"
        raise BadInput(msg) from None
    except (ValueError, KeyError, TypeError) as e:
        raise _unreadable(path, e) from e
    if given != FORMAT:
        msg = f"{path} has format {given!r}, this applier reads format {FORMAT}: bootstrap first"
        raise BadInput(msg)
    return dict(data)


def _cluster(data: dict[str, Any]) -> Cluster:
    return Cluster(
        scope=data["scope"],
        namespace=data["namespace"],
        members=_members(data["members"]),
        rest_port=int(data["rest_port"]),
        etcd=_members(data["etcd"]),
        etcd_port=int(data["etcd_port"]),
        etcd_login=EtcdLogin(**data["etcd_login"]),
    )


def _members(data: list[dict[str, str]]) -> tuple[Member, ...]:
    return tuple(Member(m["name"], m["address"]) for m in data)


def _unreadable(path: str, error: Exception) -> BadInput:
    return BadInput(f"{path} is not a plan of format {FORMAT} ({type(error).__name__}: {error}); apply it again")
