"""The kill campaign's own parts: moments that repeat, and a kill that leaves nobody."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.campaign.killing import INSIDE, kill_tree
from tests.campaign.kills import plan


def test_moments_are_the_same_for_the_same_seed_and_differ_between_seeds() -> None:
    one = [plan(1, n) for n in range(30)]
    assert one == [plan(1, n) for n in range(30)]
    assert one != [plan(2, n) for n in range(30)]
    assert {moment.inside for _, moment in one} == {None, *INSIDE}
    assert {kind for kind, _ in one} > {"birth"}


def test_a_kill_reaches_children_that_left_their_group() -> None:
    """As the engine's plugins do."""
    inner = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '600'], start_new_session=True); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    outer = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True); time.sleep(600)"
    )
    root = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert root.stdout
    sleeper = int(root.stdout.readline())
    kill_tree(root.pid)
    assert root.wait(timeout=10) == -9
    root.stdout.close()
    for _ in range(200):
        if not _alive(sleeper):
            return
        time.sleep(0.05)
    raise AssertionError(sleeper)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False
