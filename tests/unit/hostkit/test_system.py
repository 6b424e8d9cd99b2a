"""Real commands, real locks: limits hold, children die, output is capped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostkit import lock
from hostkit.context import Context
from hostkit.errors import CommandFailed, CommandTimeout, HostError, Locked
from hostkit.system import OUTPUT_CAP, RealSystem
from tests.unit.hostkit.fakes import needs_root

SYSTEM = RealSystem()
ROOT = Path(__file__).parents[3]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_timeout_kills_the_children_too(tmp_path: Path) -> None:
    """A child of a shell that holds the output open."""
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! > {pids}; sleep 300"
    start = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"did not end within 0.5 s and was killed"):
        SYSTEM.run(["sh", "-c", script], timeout=0.5)
    assert time.monotonic() - start < 5
    time.sleep(0.1)
    assert not alive(int(pids.read_text()))


def test_a_daemon_that_keeps_the_output_open_does_not_hold_us_up() -> None:
    """The command itself ended; its daemon lives on."""
    start = time.monotonic()
    done = SYSTEM.run(["sh", "-c", "sleep 8 & echo $!"], timeout=60)
    assert time.monotonic() - start < 5
    assert alive(int(done.stdout))
    os.kill(int(done.stdout), 9)


def test_output_is_capped_and_the_command_still_ends() -> None:
    """What comes after the cap is read and dropped; lines may be as long as they like."""
    done = SYSTEM.run(["head", "--bytes=5000000", "/dev/zero"], timeout=60)
    assert len(done.stdout) == OUTPUT_CAP


def test_much_input_and_output_at_once_do_not_lock_up() -> None:
    """Input larger than any pipe."""
    text = "x" * 900_000
    assert SYSTEM.run(["cat"], timeout=60, input=text).stdout == text


def test_the_callers_environment_does_not_reach_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is given."""
    monkeypatch.setenv("PGPASSWORD", "leaked")
    done = SYSTEM.run(["env"], timeout=10, env={"GIVEN": "1"})
    assert "leaked" not in done.stdout
    assert "GIVEN=1" in done.stdout
    assert "LANG=C.UTF-8" in done.stdout


def test_a_failure_shows_command_code_and_last_lines() -> None:
    """Of stderr."""
    with pytest.raises(CommandFailed, match=r"sh -c .* ended with exit code 7: why") as e:
        SYSTEM.run(["sh", "-c", "echo out; echo why >&2; exit 7"], timeout=10)
    assert e.value.returncode == 7
    assert SYSTEM.run(["false"], timeout=10, check=False).returncode == 1


def test_a_command_that_is_not_there_is_an_error() -> None:
    """Not an exception of the operating system."""
    with pytest.raises(CommandFailed, match="cannot start no-such-command: No such file or directory"):
        SYSTEM.run(["no-such-command"], timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_command_runs_as_another_user() -> None:
    """With that user's groups."""
    assert SYSTEM.run(["id", "-un"], timeout=10, user="nobody").stdout == "nobody\n"


def test_unknown_users_and_groups_are_errors() -> None:
    """They name what was looked for."""
    for lookup in (SYSTEM.uid, SYSTEM.gid):
        with pytest.raises(HostError, match="'no-such-name'"):
            lookup("no-such-name")
    with pytest.raises(HostError, match="'no-such-name'"):
        SYSTEM.run(["true"], timeout=1, user="no-such-name")


HOLD = """
import sys, time
from pathlib import Path
from hostkit import lock
from hostkit.context import Context
from hostkit.system import RealSystem
with lock.held(Context(Path(sys.argv[1]), RealSystem()), "bundle other"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(root: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), str(seconds)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@needs_root
def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    """And then goes on."""
    with holder(tmp_path, 0.7) as process:
        start = time.monotonic()
        with lock.held(Context(tmp_path, SYSTEM), "bundle mine"):
            assert time.monotonic() - start > 0.4
        assert process.wait() == 0


@needs_root
def test_a_second_run_gives_up_and_names_the_holder(tmp_path: Path) -> None:
    """Exit code 75: try again later."""
    with holder(tmp_path, 60) as process:
        waiting = f"bundle mine: waited 0.3 s for the lock .* held by bundle other .pid {process.pid}."
        with pytest.raises(Locked, match=waiting), lock.held(Context(tmp_path, SYSTEM, 0.3), "bundle mine"):
            pass
        assert Locked.exit_code == 75
        process.kill()


@needs_root
def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    """Whatever it was doing."""
    with holder(tmp_path, 60) as process:
        process.kill()
    with lock.held(Context(tmp_path, SYSTEM, 1.0), "bundle mine"):
        pass
