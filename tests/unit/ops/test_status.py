"""Asking hosts over SSH: a real SSH server on loopback in place of a host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from keadb.site import Host
from keadb.stackfile import read_stack
from ops import status
from ops.health import Answer

STACK_FILE = Path(__file__).parents[3] / "Pulumi.us3.yaml"
DEPLOY = asyncssh.generate_private_key("ssh-ed25519")
HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")


def host(port: int, *, key: asyncssh.SSHKey = HOST_KEY) -> Host:
    """The first host of a real site file, at a port of this machine."""
    site = read_stack(STACK_FILE.read_text(), stack="us3", source="test")
    line = key.export_public_key().decode().strip()
    found = next(iter(site.hosts.values()))
    return found.model_copy(update={"address": "127.0.0.1", "ssh_port": port, "ssh_host_key": line})


@asynccontextmanager
async def server(answer: Callable[[Any], Awaitable[None]]) -> AsyncIterator[int]:
    """An SSH server that lets the deploy key in and answers every command alike."""
    keys = asyncssh.import_authorized_keys(DEPLOY.export_public_key().decode())
    listening = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[HOST_KEY], authorized_client_keys=keys, process_factory=answer
    )
    async with listening:
        yield listening.get_port()


def asked(
    *, says: str = "", fails: str = "", key: asyncssh.SSHKey = DEPLOY, pinned: asyncssh.SSHKey = HOST_KEY
) -> tuple[Answer, list[str]]:
    """Ask one host; return its answer and the commands that it was given."""
    commands: list[str] = []

    async def answer(process: Any) -> None:
        commands.append(process.command)
        process.stdout.write(says)
        process.stderr.write(fails)
        process.exit(1 if fails else 0)

    async def go() -> Answer:
        async with server(answer) as port:
            return await status.ask(host(port, key=pinned), key)

    return asyncio.run(go()), commands


def test_document_comes_from_the_applier_alone() -> None:
    answer, commands = asked(says='{"host": "us3-kea-db-01"}')
    assert answer == Answer(host="us3-kea-db-01", document={"host": "us3-kea-db-01"})
    assert commands == ["sudo -n /usr/lib/keadb/keadb-apply status"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"says": "hello"}, "gave an answer that is not JSON"),
        ({"fails": "noise\nsudo: command not found\n"}, "has no state to show: sudo: command not found"),
        (
            {"pinned": asyncssh.generate_private_key("ssh-ed25519")},
            "127.0.0.1 shows another host key than the pinned one",
        ),
        (
            {"key": asyncssh.generate_private_key("ssh-ed25519")},
            "127.0.0.1 does not let in keadb with the deploy key",
        ),
    ],
)
def test_what_is_wrong_is_said_of_the_host(given: dict[str, Any], error: str) -> None:
    assert asked(**given)[0].error == error


def test_closed_port_is_an_answer() -> None:
    answer = asyncio.run(status.ask(host(1), DEPLOY))
    assert answer.document is None
    assert "127.0.0.1 cannot be reached" in answer.error


def test_host_that_accepts_and_says_nothing_costs_the_time_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "CONNECT_SECONDS", 0.3)

    async def go() -> Answer:
        async def mute(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(10)

        listening = await asyncio.start_server(mute, "127.0.0.1", 0)
        try:
            return await status.ask(host(listening.sockets[0].getsockname()[1]), DEPLOY)
        finally:
            listening.close()

    began = time.monotonic()
    assert asyncio.run(go()).error == "127.0.0.1 does not answer within the time limit"
    assert time.monotonic() - began < 5
