"""``status``: asks every host at once over SSH, as the site's deploy identity, and shows one screen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import asyncssh
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keadb.bundle import applier_command
from keadb.site import Host, Site
from ops import sites, way
from ops.health import Answer, Report, report, running
from ops.secrets import DEPLOY_KEY, secret_values
from ops.stacks import Stack

COMMAND = applier_command("status")
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""A host whose neighbours are gone waits for them first; the applier's own limits end before this."""


def look(stack: Stack) -> Report:
    """Return the state of the stack's site; CommandError only for what is wrong before any host is asked."""
    site = sites.load(stack)
    key = secret_values(stack)[DEPLOY_KEY]
    answers = asyncio.run(ask_all(site, key))
    return report(stack.name, site, answers, now=datetime.now(UTC))


async def ask_all(site: Site, deploy_key: str) -> list[Answer]:
    """Ask all hosts at once."""
    identity = asyncssh.import_private_key(deploy_key)
    return list(await asyncio.gather(*(ask(host, identity) for host in site.hosts.values())))


async def ask(host: Host, identity: asyncssh.SSHKey) -> Answer:
    """Return one host's answer; whatever goes wrong is its ``error``."""
    try:
        done = await run_on(host, identity, COMMAND)
    except (OSError, asyncssh.Error) as error:  # a time limit is an OSError too
        return Answer(host=host.name, error=why(host, error))
    if done.exit_status != 0:
        said = str(done.stderr or "").strip().splitlines()
        reason = said[-1] if said else f"exit code {done.exit_status}"
        return Answer(host=host.name, error=f"has no state to show: {reason}")
    try:
        return Answer(host=host.name, document=json.loads(str(done.stdout)))
    except ValueError:
        return Answer(host=host.name, error="gave an answer that is not JSON")


async def run_on(
    host: Host, identity: asyncssh.SSHKey, command: str, *, request: str = "", seconds: float = ANSWER_SECONDS
) -> asyncssh.SSHCompletedProcess:
    """Run a command on a host as its deploy user; raises OSError (TimeoutError too) and asyncssh.Error.

    ``request`` is its standard input, ``seconds`` the most that it may take once connected.
    """
    connection = await connect(host, identity)
    try:
        return await asyncio.wait_for(connection.run(command, input=request, check=False), seconds)
    finally:
        connection.close()


async def connect(host: Host, identity: asyncssh.SSHKey) -> asyncssh.SSHClientConnection:
    """Connect as the host's deploy user, its key pinned; raises OSError (TimeoutError too) and asyncssh.Error."""
    pinned = asyncssh.import_public_key(host.ssh_host_key)
    async with asyncio.timeout(CONNECT_SECONDS):
        return await asyncssh.connect(
            str(host.address),
            port=host.ssh_port,
            username=host.ssh_user,
            client_keys=[identity],
            known_hosts=([pinned], [], []),
            # The operator's own configuration, agent and keys have no part in this.
            config=None,
            agent_path=None,
        )


def why(host: Host, error: Exception) -> str:
    """Return in words why a host could not be asked."""
    if isinstance(error, TimeoutError):
        return f"{host.address} does not answer within the time limit"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return f"{host.address} shows another host key than the pinned one"
    if isinstance(error, asyncssh.PermissionDenied):
        return f"{host.address} does not let in {host.ssh_user} with the deploy key"
    return f"{host.address} cannot be reached: {error}"


def show(made: Report, console: Console) -> None:
    """Print one screen."""
    verdict = Text("healthy", style="bold green") if made.exit_code == 0 else Text("NOT HEALTHY", style="bold red")
    console.print(Text.assemble("stack ", (made.stack, "bold"), ": ", verdict))
    console.print(_postgresql(made.patroni), _etcd(made.etcd), sep="\n\n")
    console.print()
    console.print(f"Kea schema   {made.kea.get('schema', '?')}, reservations {made.kea.get('reservations', '?')}")
    for line in way.lines(made.way):
        console.print(line, highlight=False, soft_wrap=True)
    console.print("Software    ", _software_line(made), highlight=False, soft_wrap=True)
    console.print("Certificates", _certificate_line(made.certificates), highlight=False, soft_wrap=True)
    console.print("Connect      ", made.conninfo, sep="", highlight=False, soft_wrap=True)
    for problem in made.problems:
        console.print(Text("! " + problem, style="red"), soft_wrap=True)
    for warning in made.warnings:
        console.print(Text("* " + warning, style="yellow"), soft_wrap=True)


def _postgresql(patroni: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, title="PostgreSQL", title_justify="left")
    for column in ("member", "role", "state", "timeline", "lag", "restart pending"):
        table.add_column(column)
    for member in patroni.get("members", ()):
        lag = member.get("lag")
        table.add_row(
            member["name"],
            str(member["role"] or "?").replace("_", " "),
            str(member["state"] or "?"),
            str(member["timeline"] or "?"),
            "" if member["role"] == "leader" else "?" if lag is None else f"{lag} B",
            " ".join(member["pending_restart"]),
        )
    return table


def _etcd(etcd: Mapping[str, Any]) -> Table:
    members = etcd.get("members", ())
    healthy = sum(1 for m in members if m["healthy"])
    title = f"etcd: {healthy} of {etcd.get('declared', '?')} healthy"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in ("member", "role", "state", "size", "alarms"):
        table.add_column(column)
    for member in members:
        size = member.get("db_size")
        role = "leader" if member["name"] == etcd.get("leader") else "learner" if member["learner"] else "follower"
        table.add_row(
            member["name"],
            role,
            "healthy" if member["healthy"] else "unhealthy",
            "?" if size is None else f"{size / 1024:.0f} KiB",
            " ".join(member["alarms"]),
        )
    return table


def _software_line(made: Report) -> str:
    """Return each program with the version that runs; where hosts differ, all of them with their hosts."""
    names = {key: of["name"] for programs in made.software.values() for key, of in programs.items()}
    parts = []
    for key, name in sorted(names.items(), key=lambda item: item[1].lower(), reverse=True):
        versions = running(made, key)
        told = [version if len(versions) == 1 else f"{version} ({', '.join(h)})" for version, h in versions.items()]
        parts.append(f"{name} {' and '.join(told) or '?'}")
    return ", ".join(parts) or "none seen"


def _certificate_line(certificates: Mapping[str, Mapping[str, int]]) -> str:
    """Return the days left for each host's first certificate to end: one screen has no room for all."""
    parts = [f"{host} {min(names.values())} days" for host, names in certificates.items() if names]
    return ", ".join(parts) or "none seen"
