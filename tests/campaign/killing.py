"""Killing a run of ``keadb up`` as power loss would: every process of it at once, at a time or inside a step."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import control
from tests.lab.harness import KEADB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.api import Lab

INSIDE = {
    "certificate issue": "keadb-certificates-tls-",
    "secret write": "keadb-apply secrets",
    "etcd forming": "keadb-apply-etcd-form-",
    "initdb": "/initdb",
    "db-init": "kea-admin db-init",
    "patroni forming": "keadb-apply-patroni-form-",
    "settings": "keadb-apply-patroni-converge-",
}
"""Moments by name: what stands on the command line of a process on some host while it is so."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When to kill: ``seconds`` after the start, or after a process of ``inside`` was first seen on a host."""

    seconds: float
    inside: str | None = None

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s after {self.inside or 'the start'}"


@dataclass(frozen=True, kw_only=True)
class Killed:
    """``reached``: the moment came and the run was killed in it. Otherwise the run ended by itself with ``code``."""

    reached: bool
    seconds: float
    code: int | None


def killed_up(lab: Lab, moment: Moment, *, limit: float = 300) -> Killed:
    """Start ``keadb up`` on the lab's stack and kill all its processes at the moment."""
    began = time.monotonic()
    run = subprocess.Popen(
        [KEADB, "up", "--stack", lab.spec.name, "--yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    due = None if moment.inside else began + moment.seconds
    mark = INSIDE[moment.inside] if moment.inside else ""
    while run.poll() is None and time.monotonic() < began + limit:
        if due is None and _on_a_host(lab, mark):
            due = time.monotonic() + moment.seconds
        if due is not None and time.monotonic() >= due:
            kill_tree(run.pid)
            run.wait()
            return Killed(reached=True, seconds=time.monotonic() - began, code=None)
        time.sleep(0.02 if due is None else max(0.0, min(0.02, due - time.monotonic())))
    if run.poll() is None:
        kill_tree(run.pid)
    return Killed(reached=False, seconds=time.monotonic() - began, code=run.wait())


def kill_tree(root: int) -> None:
    """Send SIGKILL to a process and everything under it, whatever group it put itself into."""
    # Children first, while their parents still say whose they are; stopped, so that none makes another.
    tree = [root]
    for pid in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        tree += [child for child, parent in _parents() if parent == pid]
    for pid in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _parents() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in brackets may hold anything; the parent is the second field behind it.
            yield int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])


def _on_a_host(lab: Lab, mark: str) -> bool:
    """Tell whether a process with this on its command line runs on a host of this lab (not of another one)."""
    found = [
        path.parent
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if mark in _read(path).replace("\0", " ") and "nsenter" not in _read(path)
    ]
    if not found:
        return False
    answer = control.status(lab.spec) or {}
    ours = {_namespace(Path(f"/proc/{host['init']}")) for host in answer.values() if host.get("init")}
    return any(_namespace(process) in ours for process in found)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _namespace(process: Path) -> str | None:
    try:
        return str((process / "ns/pid").readlink())
    except OSError:
        return None
