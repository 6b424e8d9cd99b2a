"""What is left of a killed run: its lock, its interrupted operations."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ops import leftovers
from ops.events import Run


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
    assert leftovers.stale_lock(locked(socket.gethostname(), dead_pid), "file:///s") == dead_pid


@pytest.mark.parametrize(
    ("host", "backend"),
    [("another-machine", "file:///s"), (socket.gethostname(), "s3://states")],
    ids=["held elsewhere", "backend that names no machine"],
)
def test_lock_that_cannot_be_checked_is_left(host: str, backend: str, dead_pid: int) -> None:
    assert leftovers.stale_lock(locked(host, dead_pid), backend) is None


@pytest.mark.parametrize(
    ("stat", "holder"),
    [
        ("{pid} (pulumi) S 1 1", None),
        ("{pid} (pulumi) Z 1 1", "stale"),
        ("{pid} (sh (pulumi) R) R 1 1", None),
        ("{pid} (bash) S 1 1", "stale"),
    ],
    ids=["alive", "killed, not waited for", "a name with brackets", "another program has its number now"],
)
def test_a_listed_process_holds_the_lock_only_while_it_lives(stat: str, holder: str | None, tmp_path: Path) -> None:
    pid = os.getpid()
    (tmp_path / str(pid)).mkdir()
    (tmp_path / str(pid) / "stat").write_text(stat.format(pid=pid) + "\n")
    expected = pid if holder else None
    assert leftovers.stale_lock(locked(socket.gethostname(), pid), "file:///s", proc=tmp_path) == expected


def test_a_process_that_ends_between_two_looks_holds_nothing(tmp_path: Path) -> None:
    pid = os.getpid()
    assert leftovers.stale_lock(locked(socket.gethostname(), pid), "file:///s", proc=tmp_path) == pid


def test_a_killed_process_that_nobody_waited_for_holds_nothing() -> None:
    """The real thing: the lock of a zombie is taken over at once."""
    process = subprocess.Popen(["sleep", "600"])
    process.kill()
    for _ in range(200):
        if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    try:
        assert leftovers.stale_lock(locked(socket.gethostname(), process.pid), "file:///s") == process.pid
    finally:
        process.wait()


def test_a_number_that_another_program_has_now_is_no_holder() -> None:
    assert leftovers.stale_lock(locked(socket.gethostname(), os.getpid()), "file:///s") == os.getpid()


def test_other_errors_are_no_locks(dead_pid: int) -> None:
    assert leftovers.stale_lock(f"created by root@{socket.gethostname()} (pid {dead_pid})", "file:///s") is None


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
    leftovers.settle_pending(fake, run, done=done)  # type: ignore[arg-type]  # only `call` is used
    assert run.warnings == ["other", "2 steps were interrupted in an earlier run; each is safe to repeat"]
    assert fake.state["deployment"].get("pending_operations") == left
    assert fake.state["deployment"]["resources"] == [1]


def test_without_that_warning_the_state_is_not_touched() -> None:
    fake = FakeEngine()
    leftovers.settle_pending(fake, Run(hosts=()), done=True)  # type: ignore[arg-type]  # only `call` is used
    assert fake.state["deployment"]["pending_operations"] == [1, 2]
