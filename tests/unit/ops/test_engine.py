"""What is left of a killed run: its lock, its interrupted operations; and the engine's text without its end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from typing import Any

import pytest

from ops import engine
from ops.events import Failure, Run
from ops.exits import Exit


def locked(host: str, pid: int) -> str:
    return (
        "error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete "
        f"the lock file with `pulumi cancel`.\n  file:///s/locks/x.json: created by root@{host} (pid {pid}) at"
    )


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_lock_of_a_process_that_is_gone_is_stale(dead_pid: int) -> None:
    assert engine.stale_lock(locked(socket.gethostname(), dead_pid), "file:///s") == dead_pid


@pytest.mark.parametrize(
    ("host", "backend"),
    [("another-machine", "file:///s"), (socket.gethostname(), "s3://states")],
    ids=["held elsewhere", "backend that names no machine"],
)
def test_lock_that_cannot_be_checked_is_left(host: str, backend: str, dead_pid: int) -> None:
    assert engine.stale_lock(locked(host, dead_pid), backend) is None


def test_lock_of_a_living_engine_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_alive", lambda _pid: True)
    assert engine.stale_lock(locked(socket.gethostname(), os.getpid()), "file:///s") is None


def test_a_number_that_another_program_has_now_is_no_holder() -> None:
    assert engine.stale_lock(locked(socket.gethostname(), os.getpid()), "file:///s") == os.getpid()


def test_other_errors_are_no_locks(dead_pid: int) -> None:
    assert engine.stale_lock(f"created by root@{socket.gethostname()} (pid {dead_pid})", "file:///s") is None


class FakeEngine:
    """Holds a state with operations that a killed run left."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"version": 3, "deployment": {"resources": [1], "pending_operations": [1, 2]}}

    def call(self, *arguments: str, stdin: str | None = None) -> str:
        if arguments == ("stack", "import"):
            self.state = json.loads(stdin or "")
        return json.dumps(self.state)


@pytest.mark.parametrize(("done", "left"), [(True, None), (False, [1, 2])])
def test_interrupted_operations_are_forgotten_once_all_went_well(done: bool, left: list[int] | None) -> None:  # noqa: FBT001 -- a parameter of the test
    fake = FakeEngine()
    run = Run(hosts=())
    run.warnings = [
        "other",
        "Attempting to deploy or update resources with 2 pending operations from previous deploy",
    ]
    engine._settle_pending(fake, run, done=done)  # type: ignore[arg-type]  # only `call` is used
    assert run.warnings == ["other", "2 steps were interrupted in an earlier run; each is safe to repeat"]
    assert fake.state["deployment"].get("pending_operations") == left
    assert fake.state["deployment"]["resources"] == [1]


def test_without_that_warning_the_state_is_not_touched() -> None:
    fake = FakeEngine()
    engine._settle_pending(fake, Run(hosts=()), done=True)  # type: ignore[arg-type]  # only `call` is used
    assert fake.state["deployment"]["pending_operations"] == [1, 2]


def test_diff_text_ends_before_the_engines_own_diagnostics() -> None:
    seen: list[str] = []
    line = engine._without_diagnostics(seen.append)
    for text in ("+ stdin", "\x1b[1mDiagnostics:\x1b[0m", "  running <the whole command>"):
        line(text)
    assert seen == ["+ stdin"]


def test_reader_that_went_away_never_stops_the_engines_output() -> None:
    def gone(_text: str) -> None:
        raise BrokenPipeError

    line = engine._without_diagnostics(gone)
    line("one")
    line("two")


@pytest.mark.parametrize(
    ("failed", "changes", "expected", "code"),
    [
        (False, 0, True, Exit.OK),
        (False, 3, False, Exit.OK),
        (False, 3, True, Exit.CHANGES),
        (True, 3, True, Exit.FAILED),
    ],
)
def test_exit_codes(failed: bool, changes: int, expected: bool, code: Exit) -> None:  # noqa: FBT001 -- parameters of the test
    run = Run(hosts=(), counts={"same": 4, "update": changes})
    result = engine.Result(stack="s", operation="up", run=run, seconds=1.0, failed=failed)
    assert result.exit_code(expect_no_changes=expected) == code


def test_engine_error_without_an_event_is_still_shown() -> None:
    text = "\n code: 255\n stdout: \n stderr: error: could not load plugin\nmore\n"
    assert engine._engine_error(text) == "could not load plugin"


def test_json_result_names_host_and_step_of_failures() -> None:
    from ops.events import Place

    run = Run(hosts=("h",), failures=[Failure(place=Place("h", "etcd"), message="why")])
    result = engine.Result(stack="s", operation="up", run=run, seconds=1.04, failed=True).as_dict()
    assert result["failures"] == [{"host": "h", "step": "etcd", "message": "why"}]
    assert (result["result"], result["seconds"]) == ("failed", 1.0)
