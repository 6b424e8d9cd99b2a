"""Hosts that leave the site file: what runs on them for the cluster is stopped, and their data stays.

The engine only forgets such a host, and a standby that nobody declares could still take over one day. So ``up`` first
stops PostgreSQL there (refused where it leads) and, once etcd has removed its member, what is left of etcd. How to
reach a host that is in no site file any more is known from the engine's state alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncssh

from keadb.bundle import APPLIER
from keadb.site import Host
from ops.events import COMMAND_TYPE, urn_name
from ops.exits import CommandError
from ops.pulumi_cli import Engine
from ops.secrets import DEPLOY_KEY, secret_values
from ops.stacks import Stack
from ops.status import run_on, why

DATABASE, ETCD = "database", "etcd"
STOP_SECONDS = 240.0
"""Limit for a clean stop of PostgreSQL, and for whatever the applier does there meanwhile."""
REFUSED = 3
_FIRST = "-bootstrap"
_BUNDLES = {DATABASE: "-patroni", ETCD: "-etcd"}


@dataclass(frozen=True)
class Leaver:
    """A host that the engine's state has and the site file does not, and what it carries."""

    name: str
    carries: tuple[str, ...]

    @property
    def note(self) -> str:
        """What people are told before."""
        what = "; PostgreSQL is stopped there first" if DATABASE in self.carries else ""
        return f"{self.name} is no longer in the site file{what}; its data stays where it is"


def leavers(state: Mapping[str, Any], declared: Sequence[str]) -> tuple[Leaver, ...]:
    """Return who leaves, by the engine's state (without secrets)."""
    names = {name for _, name in _commands(state)}
    gone = sorted(n.removesuffix(_FIRST) for n in names if n.endswith(_FIRST))
    return tuple(
        Leaver(host, tuple(role for role, bundle in _BUNDLES.items() if f"{host}{bundle}" in names))
        for host in gone
        if host not in declared
    )


class Leaving:
    """These hosts over SSH. Make it before the engine runs: afterwards its state has forgotten them."""

    def __init__(self, stack: Stack, who: Sequence[Leaver]) -> None:
        """Read how they are reached; nothing is read when there are none. CommandError when that is not possible."""
        self._hosts: list[Host] = []
        if who:
            state = json.loads(Engine(stack).call("stack", "export", "--show-secrets"))
            self._identity = asyncssh.import_private_key(secret_values(stack)[DEPLOY_KEY])
            self._hosts = [_reached(state, leaver) for leaver in who if leaver.carries]

    def stop(self, what: str) -> list[str]:
        """Stop on each of the hosts what it carries of this; return what people should know.

        CommandError when a host refuses, with its reason. One that cannot be reached is only told of: it may be gone.
        """
        concerned = [host for host in self._hosts if what in host.roles]
        return asyncio.run(self._stop_all(concerned, what)) if concerned else []

    async def _stop_all(self, hosts: Sequence[Host], what: str) -> list[str]:
        return [line for host in hosts for line in await _stop(host, self._identity, what)]


async def _stop(host: Host, identity: asyncssh.SSHKey, what: str) -> list[str]:
    try:
        done = await run_on(host, identity, f"sudo -n {APPLIER} leave {what}", seconds=STOP_SECONDS)
    except (OSError, asyncssh.Error) as error:
        return [f"{why(host, error)}: see that {host.name} never comes back as it was (docs/operations.md)"]
    said = str(done.stderr or "").strip().splitlines() or ["it said nothing"]
    if done.exit_status == REFUSED:
        raise CommandError(said[-1].partition("leave: ")[2] or said[-1])
    if done.exit_status:
        return [f"{host.name}: {what} could not be stopped there: {said[-1]}"]
    return []


def _commands(state: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    resources = (state.get("deployment") or {}).get("resources") or ()
    named = [(resource, *urn_name(resource["urn"])) for resource in resources if not resource.get("delete")]
    return [(resource, name) for resource, kind, name in named if kind == COMMAND_TYPE]


def _reached(state: Mapping[str, Any], leaver: Leaver) -> Host:
    """Return how the host was reached when it was declared."""
    inputs = next(r["inputs"] for r, name in _commands(state) if name == f"{leaver.name}{_FIRST}")
    connection = _plain(inputs["connection"])
    return Host.model_validate(
        {
            "@name": leaver.name,
            "roles": [*leaver.carries],
            "address": connection["host"],
            "ssh_port": int(connection["port"]),
            "ssh_user": connection["user"],
            "ssh_host_key": connection["hostKey"],
            "failure_domain": "unknown",
        }
    )


def _plain(value: Any) -> Any:
    """Return a value of the state without the engine's wrapping of secrets."""
    return json.loads(value["plaintext"]) if isinstance(value, Mapping) and "plaintext" in value else value
