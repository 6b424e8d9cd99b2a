"""Day-2 commands: what is run on the control host, what is asked first, and what people get to read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import asyncssh
import pytest
from click.testing import CliRunner, Result

from ops import cluster, stacks
from ops.cli import cli
from ops.exits import CommandError, Exit
from tests.unit.ops.test_status import DEPLOY, host, server

PLANNED = {
    "leader": "a-db-01",
    "members": [{"name": "a-db-01", "role": "leader", "state": "running"}],
    "happens": ["a-db-01 hands over to a-db-02"],
    "problems": [],
    "seconds": 0.1,
}
DONE = {
    **PLANNED,
    "leader": "a-db-02",
    "members": [
        {"name": "a-db-01", "role": "sync_standby", "state": "streaming"},
        {"name": "a-db-02", "role": "leader", "state": "running"},
    ],
    "leads_after_seconds": 2.1,
    "seconds": 14.2,
}


class FakeControlHost:
    """Answers ``--check`` and the verb itself; keeps what it was asked."""

    asked: list[list[str]]

    def __init__(self, stack: object) -> None:
        del stack
        FakeControlHost.asked = []

    def verb(self, words: Sequence[str], progress: Any) -> dict[str, Any]:
        """Record and answer."""
        FakeControlHost.asked.append(list(words))
        progress("a line of progress")
        return PLANNED if "--check" in words else DONE


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a call of the command line with a fake control host."""
    monkeypatch.setattr(cluster, "ControlHost", FakeControlHost)
    monkeypatch.setattr(stacks, "resolve", lambda name: name)
    monkeypatch.setattr(stacks, "enter_namespace", lambda _stack: None)

    def call(*argv: str, **more: Any) -> Result:
        return CliRunner().invoke(cli, [*argv, "--stack", "us3"], standalone_mode=False, **more)

    return call


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["switchover"], ["patroni-switchover"]),
        (["restart", "--rolling"], ["patroni-restart"]),
        (["restart", "db-02"], ["patroni-restart", "db-02"]),
        (["reinit", "db-02"], ["patroni-reinit", "db-02"]),
    ],
)
def test_the_verb_is_told_which_leader_was_shown(run: Any, argv: list[str], words: list[str]) -> None:
    done = run(*argv, "--yes")
    assert done.return_value == Exit.OK, done.exception
    assert FakeControlHost.asked == [[*words, "--check"], [*words, "--leader", "a-db-01"]]


@pytest.mark.parametrize(("command", "word"), [("pause", "on"), ("resume", "off")])
def test_a_pause_needs_no_leader(run: Any, command: str, word: str) -> None:
    run(command, "--yes")
    assert FakeControlHost.asked[-1] == ["patroni-pause", word]


def test_what_happens_is_shown_before_and_how_it_ended_after(run: Any) -> None:
    done = run("switchover", "--yes")
    assert "- a-db-01 hands over to a-db-02" in done.stderr
    assert "  a line of progress" in done.stderr
    assert done.stdout == (
        "a-db-01 sync_standby (streaming), a-db-02 leader (running); led after 2.1 s; healthy after 14.2 s\n"
    )


def test_json_is_the_answer_and_nothing_else(run: Any) -> None:
    assert json.loads(run("switchover", "--yes", "--json").stdout) == DONE


def test_without_a_terminal_and_yes_nothing_is_asked_for(run: Any) -> None:
    FakeControlHost.asked = []
    done = run("switchover")
    assert isinstance(done.exception, CommandError)
    assert done.exception.code == Exit.USAGE
    assert "give --yes" in str(done.exception)
    assert FakeControlHost.asked == []


@pytest.mark.parametrize("argv", [["restart"], ["restart", "db-01", "--rolling"]])
def test_a_restart_is_of_one_host_or_rolling(run: Any, argv: list[str]) -> None:
    done = run(*argv, "--yes")
    assert isinstance(done.exception, CommandError)
    assert "either a HOST or --rolling" in str(done.exception)


def over_ssh(*, out: str = "", err: str = "", code: int = 0) -> tuple[Any, list[str], list[str]]:
    """Run a command on a real SSH server; return what came, the progress, and the commands it was given."""
    commands: list[str] = []
    progress: list[str] = []

    async def answer(process: Any) -> None:
        commands.append(process.command)
        process.stderr.write(err)
        process.stdout.write(out)
        process.exit(code)

    async def go() -> Any:
        async with server(answer) as port:
            return await cluster._run(host(port), DEPLOY, "a-verb", progress.append)

    return asyncio.run(go()), progress, commands


def test_lines_of_progress_come_through() -> None:
    came, progress, commands = over_ssh(out='{"a": 1}', err="one\ntwo\n")
    assert came == (0, '{"a": 1}', ["one", "two"])
    assert progress == ["one", "two"]
    assert commands == ["a-verb"]


def test_the_last_line_of_a_failure_is_its_reason_and_no_progress() -> None:
    came, progress, _ = over_ssh(err="one\nkeadb-apply patroni-restart: cluster us3: no leader\n", code=3)
    assert progress == ["one"]
    assert cluster.reason("w", "patroni-restart", came[0], came[2]) == "cluster us3: no leader"
    several = ["one", "keadb-apply patroni-restart: it failed; last words:", "a word"]
    assert cluster.reason("w", "patroni-restart", 1, several) == "it failed; last words:\na word"
    assert cluster.reason("w", "patroni-restart", 1, []) == "w: patroni-restart ended with exit code 1"


def test_an_older_applier_is_named() -> None:
    said = ["keadb-apply patroni-restart: verb 'patroni-restart' is given, allowed: apply, status"]
    assert "run 'keadb up' first" in cluster.reason("w", "patroni-restart", 2, said)


def test_a_host_that_does_not_answer() -> None:
    control = cluster.ControlHost.__new__(cluster.ControlHost)
    control.host, control._identity = host(1), asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(CommandError, match=r"127\.0\.0\.1 cannot be reached"):
        control.verb(["patroni-switchover"], print)
