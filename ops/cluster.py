"""Day-2 work on a site's PostgreSQL: handing over, restarting, copying a standby anew, pausing.

The work is done by a verb of the applier on the control host, which asks Patroni; nothing here touches the cluster
itself. What would happen is asked for first, and the verb is told which leader was shown: with another one by then
it does nothing.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncssh

from keadb.bundle import applier_command
from keadb.deploy_rights import DAY_2_OPTIONS
from keadb.site import Host
from ops import sites
from ops.exits import CommandError
from ops.secrets import DEPLOY_KEY, secret_values
from ops.stacks import Stack
from ops.status import connect, why

APPLIER = applier_command(DAY_2_OPTIONS)
LIMIT_SECONDS = 3900.0
"""Longer than the longest verb: a copy of the database, and health after it."""


class ControlHost:
    """The applier's verbs on the stack's control host, over SSH as the site's deploy user."""

    def __init__(self, stack: Stack) -> None:
        """Read the site and its deploy key; CommandError for what is wrong with them."""
        self.host = sites.load(stack).control_host
        self._identity = asyncssh.import_private_key(secret_values(stack)[DEPLOY_KEY])

    def verb(self, words: Sequence[str], progress: Callable[[str], None]) -> dict[str, Any]:
        """Run a verb and return its answer; ``progress`` gets its lines. CommandError with its reason otherwise."""
        command = f"{APPLIER} {shlex.join(words)}"
        try:
            code, out, said = asyncio.run(_run(self.host, self._identity, command, progress))
        except (OSError, asyncssh.Error) as error:  # a time limit is an OSError too
            msg = f"{self.host.name}: {why(self.host, error)}"
            raise CommandError(msg) from error
        if code != 0:
            raise CommandError(reason(self.host.name, words[0], code, said))
        try:
            return dict(json.loads(out))
        except ValueError as error:
            msg = f"{self.host.name}: {words[0]} gave an answer that is not JSON"
            raise CommandError(msg) from error


async def _run(
    host: Host, identity: asyncssh.SSHKey, command: str, progress: Callable[[str], None]
) -> tuple[int | None, str, list[str]]:
    """Return exit code, output and the lines of stderr, each passed on when the next one comes."""
    connection = await connect(host, identity)
    try:
        async with asyncio.timeout(LIMIT_SECONDS), connection.create_process(command) as process:
            said: list[str] = []
            async for line in process.stderr:
                if not str(line).strip():
                    continue
                if said:
                    progress(said[-1])
                said.append(str(line).rstrip("\n"))
            out = await process.stdout.read()
            await process.wait()
        if process.returncode == 0 and said:
            progress(said[-1])  # of a failure the last line is the error
        return process.returncode, str(out), said
    finally:
        connection.close()


def reason(host: str, verb: str, code: int | None, said: Sequence[str]) -> str:
    """Return the error for a verb that did not end well: its own last words, without the command's name."""
    name = f"keadb-apply {verb}: "
    begins = next((n for n, line in enumerate(said) if line.startswith(name)), len(said) - 1)
    text = "\n".join(said[begins:]).removeprefix(name) if said else f"{host}: {verb} ended with exit code {code}"
    if "is given, allowed:" in text and f"verb {verb!r}" in text:
        return f"{host} has an older applier, which does not know {verb}: run 'keadb up' first"
    return text


def members_line(answer: Mapping[str, Any]) -> str:
    """Return in one line who leads and who follows."""
    return ", ".join(f"{m['name']} {m['role']} ({m['state']})" for m in answer["members"])


def ended(answer: Mapping[str, Any]) -> str:
    """Return the result in one line."""
    parts = [members_line(answer)]
    if "leads_after_seconds" in answer:
        parts.append(f"led after {answer['leads_after_seconds']} s")
    if answer.get("restart_seconds"):
        parts += [f"{name} restarted in {seconds} s" for name, seconds in answer["restart_seconds"].items()]
    state = "healthy" if not answer["problems"] else "; ".join(answer["problems"])
    return f"{'; '.join(parts)}; {state} after {answer['seconds']} s"
