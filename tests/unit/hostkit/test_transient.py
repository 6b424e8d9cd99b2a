"""The front process and the unit that does the work: real processes, a pretended systemd-run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hostkit import bundle, steps, transient
from hostkit.errors import BadInput, HostError, Locked, Refused
from hostkit.system import Completed
from tests.unit.hostkit.fakes import Machine, needs_root

ROOT = Path(__file__).parents[3]


def answering(machine: Machine, result: dict[str, object] | None) -> list[Sequence[str]]:
    """Pretend a unit that leaves this result at once, or ends without one."""
    started: list[Sequence[str]] = []

    def start(argv: Sequence[str]) -> Completed:
        started.append(argv)
        if result is not None:
            machine.put(f"{argv[-1]}.result", json.dumps(result))
            (machine.root / argv[-1][1:]).unlink()
        return Completed(0, "", "")

    machine.system.commands["systemd-run"] = start
    machine.system.commands["systemctl"] = lambda _: Completed(0, "inactive\n", "")
    return started


def test_the_work_is_given_to_a_unit_of_its_own(machine: Machine) -> None:
    """With a time limit; nothing of request and result stays."""
    started = answering(machine, {"exit": 0, "summary": {"changed": True}})
    assert transient.through_unit(machine.ctx, "apply", "etcd", "{}", 90) == {"changed": True}
    argv = started[0]
    assert argv[1].startswith("--unit=keadb-apply-etcd-")
    assert {"--collect", "--no-block", "--property=RuntimeMaxSec=90"} <= set(argv)
    assert argv[-3:-1] == ["/usr/lib/keadb/keadb-apply", "run-request"]
    assert list((machine.root / "run/keadb/requests").iterdir()) == []


@pytest.mark.parametrize("kind", [HostError, BadInput, Refused, Locked])
def test_an_error_keeps_its_kind(machine: Machine, kind: type[HostError]) -> None:
    """And so its exit code."""
    answering(machine, {"exit": kind.exit_code, "error": "the reason"})
    with pytest.raises(kind, match="the reason") as e:
        transient.through_unit(machine.ctx, "apply", "etcd", "{}", 90)
    assert type(e.value) is kind


def test_a_unit_that_ends_without_a_result_is_an_error_with_its_journal(machine: Machine) -> None:
    """Killed, or never able to start."""
    answering(machine, None)
    machine.system.journal = "oom-killed"
    with pytest.raises(HostError, match=r"unit keadb-apply-etcd-\w+ ended without a result; .*\noom-killed"):
        transient.through_unit(machine.ctx, "apply", "etcd", "{}", 90)


def test_what_dead_fronts_left_is_cleaned_away_after_a_day(machine: Machine) -> None:
    """And not before: somebody may still wait for it."""
    for name, age in (("keadb-apply-a-1.json.result", 2 * 86400), ("keadb-apply-b-2.json.result", 60)):
        machine.put(f"{transient.FOLDER}/{name}", "{}")
        then = time.time() - age
        os.utime(machine.root / transient.FOLDER[1:] / name, (then, then))
    answering(machine, {"exit": 0, "summary": {}})
    transient.through_unit(machine.ctx, "apply", "etcd", "{}", 90)
    left = [p.name for p in (machine.root / transient.FOLDER[1:]).iterdir()]
    assert left == ["keadb-apply-b-2.json.result"]


FRONT = """
import sys
from pathlib import Path
from hostkit import bundle, steps, transient
from hostkit.context import Context
from hostkit.system import RealSystem
sys.path.insert(0, sys.argv[2])
import stand_in
print(transient.through_unit(Context(Path(sys.argv[1]), stand_in.System(sys.argv[1])), "work", "x", "given", 60))
"""
STAND_IN = '''
import subprocess, sys
from pathlib import Path
from hostkit.system import Completed, RealSystem

UNIT = """
import sys, time
from pathlib import Path
from hostkit import bundle, steps, transient
from hostkit.context import Context
from hostkit.system import RealSystem
def work(ctx, text):
    Path(sys.argv[1], "started").touch()
    ctx.say("half way")
    time.sleep(1)
    Path(sys.argv[1], "done").write_text(text)
    return {"did": text}
sys.exit(transient.run_request(Context(Path(sys.argv[1]), RealSystem()), sys.argv[2], {"work": work}))
"""

class System(RealSystem):
    def __init__(self, root):
        self.root = root
    def run(self, argv, **options):
        if argv[0] == "systemd-run":
            subprocess.Popen([sys.executable, "-c", UNIT, self.root, argv[-1]], start_new_session=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
            return Completed(0, "", "")
        if argv[0] == "systemctl":
            return Completed(0, "active", "")
        return super().run(argv, **options)
'''


def front(tmp_path: Path) -> subprocess.Popen[str]:
    """A front whose unit needs a second."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return subprocess.Popen(
        [sys.executable, "-c", FRONT, str(root), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_for(path: Path) -> None:
    """Until it exists, ten seconds at most."""
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{path} never came")


@needs_root
def test_the_front_prints_what_the_unit_did(tmp_path: Path) -> None:
    """Through files, in real processes."""
    with front(tmp_path) as process:
        assert process.communicate() == ("{'did': 'given'}\n", "half way\n")
    assert list((tmp_path / "root" / transient.FOLDER[1:]).iterdir()) == []


@needs_root
def test_progress_comes_while_the_work_goes_on(tmp_path: Path) -> None:
    """Line by line, not at the end."""
    with front(tmp_path) as process:
        assert process.stderr
        assert process.stderr.readline() == "half way\n"
        assert not (tmp_path / "root" / "done").exists()
        process.communicate()


def test_a_steps_stderr_is_its_progress(machine: Machine) -> None:
    """What a step says reaches whoever watches, under the step's name."""
    said: list[str] = []
    ctx = dataclasses.replace(machine.ctx, say=said.append)
    step = bundle.Step("waiting", ("sh", "-c", "echo one >&2; echo out; echo two >&2"), None, 30)
    assert steps.run_steps(ctx, [step]) == {"waiting": "ran"}
    assert said == ["waiting", "waiting: one", "waiting: two"]


@needs_root
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_the_unit_goes_on_when_the_front_dies(tmp_path: Path, number: int) -> None:
    """A cut connection."""
    with front(tmp_path) as process:
        wait_for(tmp_path / "root/started")
        process.send_signal(number)
        errors = process.communicate()[1]
        assert not (tmp_path / "root/done").exists()
    if number != signal.SIGKILL:
        assert "goes on. Run the same again" in errors
    wait_for(tmp_path / "root/done")


def test_a_stopped_unit_leaves_a_result_that_says_so(machine: Machine) -> None:
    """Its time limit passed, or someone stopped it."""
    path = f"{transient.FOLDER}/keadb-apply-x-1.json"
    machine.put(path, json.dumps({"verb": "apply", "text": "", "lock_wait": 1}), 0o600)

    def work(_ctx: object, _text: str) -> dict[str, object]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return {}

    assert transient.run_request(machine.ctx, path, {"apply": work}) == 1
    assert "was stopped before its end" in json.loads(machine.text(f"{path}.result"))["error"]


def test_a_surprise_in_the_unit_reaches_the_front(machine: Machine) -> None:
    """As kind and message."""
    path = f"{transient.FOLDER}/keadb-apply-x-1.json"
    machine.put(path, json.dumps({"verb": "apply", "text": "", "lock_wait": 1}), 0o600)
    assert transient.run_request(machine.ctx, path, {"apply": lambda _c, _t: {"x": 1 // 0}}) == 1
    assert json.loads(machine.text(f"{path}.result"))["error"].startswith("apply: ZeroDivisionError")


def test_a_request_that_others_could_have_written_is_bad_input(machine: Machine) -> None:
    """It runs as root."""
    path = f"{transient.FOLDER}/keadb-apply-x-1.json"
    machine.put(path, "{}", 0o666)
    with pytest.raises(BadInput, match="is not a file that only root can read and write"):
        transient.run_request(machine.ctx, path, {})
