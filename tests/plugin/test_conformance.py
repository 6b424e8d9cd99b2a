"""How a command plugin behaves, row by row, seen through the real engine and a real SSH server.

Results say something about the plugin that was run and nothing about another one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import pulumi
import pytest
from asyncssh.channel import SSHServerChannel
from pulumi_command import remote

from tests.plugin.conftest import Secret, inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.plugin.conftest import Stack
    from tests.plugin.ssh_server import SshServer

SECRET = "kOf9-whaT-a-secret"


def connection(server: SshServer, **changes: Any) -> dict[str, Any]:
    """How to reach the server, few retries, host key pinned."""
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "user": "keadb",
        "private_key": Secret(server.private_key),
        "host_key": server.public_host_key,
        "dial_error_limit": 2,
        **changes,
    }


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait until the condition holds; fail with `what` if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.1)


def test_create_no_op_update(stack: Stack, host: SshServer) -> None:
    """A command runs once, not again without a change, and again when its stdin changes."""
    stack.declare(connection=connection(host), create="cat >>got; echo out; echo err >&2", stdin="one\n")
    assert stack.up() == ["cmd create"]
    made = stack.resources()["cmd"]
    assert made["outputs"]["stdout"] == "out"
    assert made["outputs"]["stderr"] == "err"
    assert made["id"].startswith("cmd")
    assert len(made["id"]) == len("cmd") + 8
    assert stack.up(expect_no_changes=True) == []
    assert len(host.commands) == 1
    stack.declare(connection=connection(host), create="cat >>got; echo out; echo err >&2", stdin="two\n")
    assert stack.up() == ["cmd update"]
    assert (host.folder / "got").read_text() == "one\ntwo\n"
    assert stack.resources()["cmd"]["id"] == made["id"]


def test_update_command(stack: Stack, host: SshServer) -> None:
    """`update` is run instead of `create`, and sees the earlier output unless told not to."""
    arguments: dict[str, Any] = {"connection": connection(host), "create": "echo first", "update": "echo again"}
    stack.declare(**arguments)
    stack.up()
    stack.declare(**arguments, stdin="x")
    stack.up()
    assert host.commands == ["echo first", "echo again"]
    assert host.seen_env[1] == {"PULUMI_COMMAND_STDOUT": "first"}
    stack.declare(**arguments, stdin="y", add_previous_output_in_env=False)
    stack.up()
    assert host.seen_env[2] == {}
    assert stack.resources()["cmd"]["outputs"]["stdout"] == "again"


def test_triggers_replace(stack: Stack, host: SshServer) -> None:
    """A changed, an added and a removed trigger each replace, even where there is an `update`."""
    arguments: dict[str, Any] = {"connection": connection(host), "create": "echo c", "update": "echo u"}
    stack.declare(**arguments, triggers=["a"])
    stack.up()
    first = stack.resources()["cmd"]["id"]
    stack.declare(**arguments, triggers=["b"])
    assert "cmd create-replacement" in stack.up()
    assert stack.resources()["cmd"]["id"] != first
    stack.declare(**arguments, triggers=["b", "c"])
    assert "cmd create-replacement" in stack.up()
    assert host.commands == ["echo c"] * 3


def test_failed_create(stack: Stack, host: SshServer) -> None:
    """A failed create leaves no state; the error shows command and output, not stdin; then it runs again."""
    arguments: dict[str, Any] = {"connection": connection(host), "stdin": Secret(SECRET)}
    stack.declare(**arguments, create='cat >/dev/null; echo "what went wrong"; exit 3')
    said = stack.fails()
    assert "Process exited with status 3: running" in said
    assert "what went wrong" in said
    assert SECRET not in said
    assert stack.resources() == {}
    stack.declare(**arguments, create="cat >/dev/null")
    assert stack.up() == ["cmd create"]


def test_failed_update(stack: Stack, host: SshServer) -> None:
    """A failed update keeps the old inputs in the state, so that the next run does it again."""
    stack.declare(connection=connection(host), create="cat >got; test $(cat got) = good", stdin="good")
    stack.up()
    stack.declare(connection=connection(host), create="cat >got; test $(cat got) = good", stdin="bad")
    stack.fails()
    assert stack.resources()["cmd"]["inputs"]["stdin"] == "good"
    assert stack.preview() == ["cmd update"]


def test_host_key_mismatch(stack: Stack, host: SshServer) -> None:
    """A host with another key is not talked to, and the error says so."""
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    stack.declare(connection=connection(host, host_key=other, dial_error_limit=1), create="echo never")
    said = stack.fails()
    assert "host key mismatch" in said
    assert "after 1 failed attempts" in said
    assert host.connections == 2
    assert host.commands == []


def test_wrong_client_key(stack: Stack, host: SshServer) -> None:
    """A key that is not let in is an authentication error that shows no key."""
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    stack.declare(connection=connection(host, private_key=Secret(other), dial_error_limit=0), create="true")
    said = stack.fails()
    assert "unable to authenticate" in said
    assert other.splitlines()[1] not in said


def test_dial_retry(stack: Stack, server: SshServer) -> None:
    """A host that is not up yet is waited for."""
    stack.declare(connection=connection(server, dial_error_limit=60), create="echo up")
    later = threading.Timer(4, server.start)
    later.start()
    assert stack.up() == ["cmd create"]
    later.join()
    assert any("failed: retrying" in line for line in stack.log_lines())


def test_unreachable(stack: Stack, server: SshServer) -> None:
    """A host that never comes is an error that names it, after limit + 1 dials."""
    stack.declare(connection=connection(server, dial_error_limit=2), create="true")
    said = stack.fails()
    assert f"after 2 failed attempts: dial tcp 127.0.0.1:{server.port}" in said


def test_secrets_stay_secret(stack: Stack, host: SshServer) -> None:
    """Neither secret stdin nor the private key is in the state or in an event; the preview is no exception."""
    arguments: dict[str, Any] = {"connection": connection(host), "create": "cat >got", "logging": "none"}
    stack.declare(**arguments, stdin=Secret(SECRET))
    told = ""
    stack.preview(diff=True)
    told += stack.told() + stack.output
    stack.up(diff=True)
    told += stack.told() + stack.output
    stack.declare(**arguments, stdin=Secret(SECRET + "2"), environment={"A": "b"})
    stack.preview(diff=True)
    told += stack.told() + stack.output
    stack.declare(**{**arguments, "connection": connection(host, user="other")}, stdin=Secret(SECRET))
    stack.preview(diff=True)
    told += stack.told() + stack.output
    key_line = host.private_key.splitlines()[2]
    assert (host.folder / "got").read_text() == SECRET
    for hidden in (SECRET, key_line):
        assert hidden not in told
        assert hidden not in stack.everything_stored()


def test_connection_is_secret_by_itself(stack: Stack, host: SshServer) -> None:
    """A connection whose values are not marked is stored encrypted all the same."""
    stack.declare(connection=connection(host, private_key=host.private_key), create="true")
    stack.up()
    assert host.private_key.splitlines()[2] not in stack.everything_stored()
    stored = stack.resources()["cmd"]["inputs"]["connection"]
    assert stored["4dabf18193072939515e22adb298388d"] == "1b47061264138c4ac30d75fd1eb44270", "marked as a secret"


@pytest.mark.parametrize(
    ("logging", "expected"),
    [
        (None, {"to-out", "to-err"}),
        ("stdoutAndStderr", {"to-out", "to-err"}),
        ("stdout", {"to-out"}),
        ("stderr", {"to-err"}),
        ("none", set()),
    ],
)
def test_logging(stack: Stack, host: SshServer, logging: str | None, expected: set[str]) -> None:
    """Output is streamed as log lines as far as `logging` says; it is in the state all the same."""
    stack.declare(connection=connection(host), create="echo to-out; echo to-err >&2", logging=logging)
    stack.up()
    lines = {line for text in stack.log_lines() for line in text.split() if line.startswith("to-")}
    assert lines == expected
    outputs = stack.resources()["cmd"]["outputs"]
    assert (outputs["stdout"], outputs["stderr"]) == ("to-out", "to-err")


def test_delete(stack: Stack, host: SshServer) -> None:
    """`delete` is run when the stack is destroyed; a command without one just goes."""
    stack.declare("with", connection=connection(host), create="touch mark", delete="rm mark")
    stack.declare("without", connection=connection(host), create="true")
    stack.up()
    assert (host.folder / "mark").exists()
    stack.destroy()
    assert not (host.folder / "mark").exists()
    assert sorted(host.commands) == ["rm mark", "touch mark", "true"]


def test_preview_touches_nothing(stack: Stack, host: SshServer) -> None:
    """A preview dials nobody; outputs are unknown then, so what uses them is unknown too."""
    seen: list[str] = []
    stack.declare(connection=connection(host), create="echo out")
    stack.on_command = lambda made: made.stdout.apply(seen.append)
    assert stack.preview() == ["cmd create"]
    assert (host.connections, seen) == (0, [])
    stack.up()
    assert seen == ["out"]
    seen.clear()
    assert stack.preview() == []
    assert seen == ["out"], "nothing changed: known"
    seen.clear()
    stack.declare(connection=connection(host), create="echo other")
    assert stack.preview() == ["cmd update"]
    assert (host.connections, seen) == (1, [])


def test_chain_in_a_component(stack: Stack, host: SshServer) -> None:
    """A command inside a component takes another's output as its input, unknown at first, known afterwards."""

    def program() -> None:
        parent = pulumi.ComponentResource("test:index:Host", "host")
        where = inputs(connection(host))
        child = pulumi.ResourceOptions(parent=parent)
        first = remote.Command("first", connection=where, create="echo 7", opts=child)
        remote.Command(
            "second",
            connection=where,
            create="cat >got",
            stdin=first.stdout,
            triggers=[first.stdout, {"deep": first.stderr}],
            opts=child,
        )

    stack.program = program
    assert stack.preview() == ["first create", "second create"]
    assert host.connections == 0
    assert stack.up() == ["first create", "second create"]
    assert (host.folder / "got").read_text() == "7"
    assert stack.up(expect_no_changes=True) == []


@pytest.mark.filterwarnings("ignore:Error in event stream:UserWarning")  # of the engine that is killed
def test_killed_engine(stack: Stack, host: SshServer) -> None:
    """A plugin whose engine was killed ends by itself."""
    stack.declare(connection=connection(host), create="touch began; sleep 5")
    running = threading.Thread(target=stack.fails, daemon=True)
    running.start()
    wait_for((host.folder / "began").exists, "the command runs")
    os.kill(engine_of(stack), signal.SIGKILL)
    wait_for(lambda: not stack.plugin_processes(), "the plugin ends")
    running.join(20)


def engine_of(stack: Stack) -> int:
    """Return the engine's process id: the parent of the plugin that runs for this stack."""
    (plugin,) = stack.plugin_processes()
    return int(Path(f"/proc/{plugin}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_cancelled_engine(stack: Stack, host: SshServer) -> None:
    """What runs is left to its end and is in the state; nothing else begins; the next run does the rest."""
    until = "until [ -e go ]; do sleep 0.1; done"

    def program() -> None:
        where = inputs(connection(host))
        first = remote.Command("first", connection=where, create=f"touch began; {until}; touch ended")
        remote.Command(
            "second", connection=where, create="touch second", opts=pulumi.ResourceOptions(depends_on=first)
        )

    stack.program = program
    said: list[str] = []
    running = threading.Thread(target=lambda: said.append(stack.fails()), daemon=True)
    running.start()
    wait_for((host.folder / "began").exists, "the command runs")
    os.kill(engine_of(stack), signal.SIGINT)
    time.sleep(1)  # nothing tells that the engine has taken it in
    assert not said
    assert not (host.folder / "ended").exists()
    (host.folder / "go").touch()
    running.join(30)
    assert said
    assert (host.folder / "ended").exists()
    assert not (host.folder / "second").exists()
    assert set(stack.resources()) == {"first"}
    assert stack.up() == ["second create"]


def test_a_host_that_dies_during_a_command(stack: Stack, host: SshServer) -> None:
    """An error that says so and has what was printed till then; no state; the next run does it again."""
    stack.declare(connection=connection(host), create="echo so far; touch began; until [ -e go ]; do sleep 0.1; done")
    said: list[str] = []
    running = threading.Thread(target=lambda: said.append(stack.fails()), daemon=True)
    running.start()
    wait_for((host.folder / "began").exists, "the command runs")
    host.drop()
    running.join(30)
    (text,) = said
    assert "wait: remote command exited without exit status or exit signal" in text
    assert "so far" in text
    assert stack.resources() == {}
    (host.folder / "go").touch()
    assert stack.up() == ["cmd create"]


@pytest.mark.parametrize("newline", ["", r"\n"], ids=["at the end", "with more behind it"])
def test_a_very_long_line_is_logged_and_kept(stack: Stack, host: SshServer, newline: str) -> None:
    """The official plugin 1.2.1 is known to hang here: its log reader stops at 64 KiB."""
    line = f"head -c 200000 /dev/zero | tr '\\0' x; printf '{newline}'; echo end"
    stack.declare(connection=connection(host), create=f"({line}); ({line}) >&2")
    stack.up()
    outputs = stack.resources()["cmd"]["outputs"]
    expected = "x" * 200_000 + ("\n" if newline else "") + "end"
    assert outputs["stdout"] == expected
    assert outputs["stderr"] == expected
    assert any("x" * 200_000 in text for text in stack.log_lines())


def test_parallel(stack: Stack, host: SshServer) -> None:
    """Commands that wait do not hold up one another."""
    for number in range(6):
        stack.declare(f"cmd{number}", connection=connection(host), create="sleep 3")
    started = time.monotonic()
    assert len(stack.up(parallel=8)) == 6
    assert time.monotonic() - started < 12, "six times three seconds, one after the other, would be 18"


def test_environment(stack: Stack, host: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables reach the command; a server that refuses one fails it, before the command is run."""
    stack.declare(connection=connection(host), create='echo "$GREETING"', environment={"GREETING": "hello"})
    stack.up()
    assert stack.resources()["cmd"]["outputs"]["stdout"] == "hello"
    monkeypatch.setattr(SSHServerChannel, "_process_env_request", lambda *_: False)
    stack.declare(connection=connection(host), create="touch ran", environment={"GREETING": "bye"})
    assert 'could not set environment variable "GREETING"' in stack.fails()
    assert not (host.folder / "ran").exists()


def test_large_input_and_output(stack: Stack, host: SshServer) -> None:
    """Megabytes go through both ways; output with no newline at its end keeps all of itself."""
    given = "0123456789abcde\n" * 100_000
    stack.declare(connection=connection(host), create="cat; printf end", stdin=given, logging="none")
    stack.up()
    assert stack.resources()["cmd"]["outputs"]["stdout"] == given + "end"


def test_input_not_read(stack: Stack, host: SshServer) -> None:
    """A command may end without reading its stdin."""
    stack.declare(connection=connection(host), create="exec <&-; echo done", stdin="x" * 1_000_000)
    stack.up()
    assert stack.resources()["cmd"]["outputs"]["stdout"] == "done"


def test_refused_inputs(stack: Stack, server: SshServer) -> None:
    """A wrong `logging` is refused at preview, with the allowed values."""
    stack.declare(connection=connection(server), create="true", logging="loud")
    assert "stdoutAndStderr" in stack.fails()
