"""A run that is broken off while a host is at work: what is told, what is left, and that the next run goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.harness import BARE, KEADB, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.harness import Site

pytestmark = pytest.mark.lab

MARK = "keadb-test-holds-the-lock"
HOLD = f"systemd-run --quiet --collect --unit={MARK} flock /run/keadb/lock sleep 600"


@pytest.fixture
def busy(settled: Site) -> Iterator[Site]:
    """The site with a change for the bare host to make, whose applier is kept waiting until `let_go`."""
    host = settled.lab.spec.host(BARE).name

    def bigger(data: dict[str, Any]) -> None:
        data["hosts"][host]["disk_gb"] += 1

    with settled.edited(bigger):
        assert settled.lab.exec(BARE, ["sh", "-c", HOLD]).returncode == 0
        try:
            yield settled
        finally:
            let_go(settled)
    settled.keadb("up", "--stack", settled.name, "--yes")
    settled.require_health()


def let_go(site: Site) -> None:
    """Let the applier on the host work."""
    site.lab.exec(BARE, ["systemctl", "stop", MARK])


def tells(said: Path, text: str) -> bool:
    """Say whether `up` has told this by now."""
    return text in said.read_text()


@contextlib.contextmanager
def up(site: Site, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `up` as a terminal's group of processes, and wait until the host is at work."""
    argv = [str(KEADB), "up", "--stack", site.name, "--yes"]
    with said.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for("the host to be at work", partial(tells, said, "base  waiting for"))
        yield process
    finally:
        if process.poll() is None:
            process.kill()


def test_a_connection_that_is_lost(busy: Site, tmp_path: Path) -> None:
    """The error is not the last thing that the step told; and the step, which nobody watches, ends."""
    host, said = busy.lab.spec.host(BARE).name, tmp_path / "said"
    with up(busy, said) as process:
        busy.lab.exec(BARE, ["pkill", "-KILL", "-u", "keadb", "sshd"])
        assert process.wait(timeout=60) == 1
    (error,) = [line for line in said.read_text().splitlines() if line.startswith("error: ")]
    assert error.startswith(
        f"error: {host}: base: the connection to {host} was lost during base; the step may still run there, and the "
        "next 'keadb up' waits for it; the last it told: waiting for"
    )
    let_go(busy)
    busy.keadb("up", "--stack", busy.name, "--yes")
    busy.keadb("preview", "--stack", busy.name, "--expect-no-changes")


def test_ctrl_c_once_lets_the_step_end(busy: Site, tmp_path: Path) -> None:
    """Its result is in the state; the next run has nothing to repeat."""
    host, said = busy.lab.spec.host(BARE).name, tmp_path / "said"
    with up(busy, said) as process:
        os.killpg(process.pid, signal.SIGINT)
        wait_for("what Ctrl-C does to be told", partial(tells, said, "stopping once"), 20)
        let_go(busy)
        assert process.wait(timeout=60) == 130
    text = said.read_text()
    assert f"stopping once these have ended: {host}: base. No other step begins." in text
    assert f"up {busy.name}: stopped in" in text
    assert "Traceback" not in text
    busy.keadb("preview", "--stack", busy.name, "--expect-no-changes")


def test_ctrl_c_twice_stops_at_once(busy: Site, tmp_path: Path) -> None:
    """The host is not disturbed; the next run waits for it, and says what it found."""
    said = tmp_path / "said"
    with up(busy, said) as process:
        for told in ("stopping once", "stopping at once"):
            os.killpg(process.pid, signal.SIGINT)
            wait_for(f"{told!r} to be told", partial(tells, said, told), 20)
        assert process.wait(timeout=20) == 130
    assert "Traceback" not in said.read_text()
    let_go(busy)
    again = busy.keadb("up", "--stack", busy.name, "--yes")
    assert "1 step was interrupted in an earlier run" in again.stdout + again.stderr
    busy.keadb("preview", "--stack", busy.name, "--expect-no-changes")
