"""Labs without a site on them, for the tests of the lab itself: fixtures, and how to look at them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import cgroup
from lab.api import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DISK_MB = 256
BANNER = "import socket,sys; print(socket.create_connection((sys.argv[1], 22), 2).recv(8).decode())"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state root of this run's own: deeper than a socket's name may be long."""
    root = tmp_path_factory.mktemp("s" * 100)
    before = os.environ.get("KEADB_LAB_STATE")
    os.environ["KEADB_LAB_STATE"] = str(root)
    yield root
    if before is None:
        del os.environ["KEADB_LAB_STATE"]
    else:
        os.environ["KEADB_LAB_STATE"] = before


@pytest.fixture(scope="module")
def shared(state: Path) -> Iterator[Lab]:
    """A lab that several tests use; each leaves its hosts running and plugged in."""
    assert state
    yield from _without_a_site("t1")


@pytest.fixture
def own(state: Path) -> Iterator[Lab]:
    """A lab that a test may break."""
    assert state
    yield from _without_a_site("t2")


def _without_a_site(name: str) -> Iterator[Lab]:
    lab = Lab(name)
    lab.down()
    lab.up(disk_mb=DISK_MB, with_secrets=False)
    yield lab
    lab.down()


def connection(lab: Lab, host: str) -> subprocess.Popen[bytes]:
    """Hold a connection to the host's SSH; the process ends with the connection."""
    holder = "import socket,sys; s = socket.create_connection((sys.argv[1], 22)); [s.recv(64), s.recv(64)]"
    return subprocess.Popen(lab.ns_argv([sys.executable, "-c", holder, str(lab.address(host))]))


def answers(lab: Lab, host: str) -> bool:
    """Say whether the host's SSH answers from inside the lab's network."""
    done = lab.ns([sys.executable, "-c", BANNER, str(lab.address(host))])
    return done.stdout.startswith("SSH-2.0-")


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the lab's command line."""
    argv = [sys.executable, "-m", "lab", *arguments]
    return subprocess.run(argv, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def kill_all(lab: Lab) -> None:
    """Kill every process of a lab; some end by themselves meanwhile."""
    for pid in processes(lab):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes(lab: Lab) -> list[int]:
    """Return every process in the lab's control group."""
    found = []
    for path, _folders, _files in os.walk(cgroup.root() / lab.spec.cgroup):
        with contextlib.suppress(OSError):  # a group that ended meanwhile
            found += [int(pid) for pid in (Path(path) / "cgroup.procs").read_text().split()]
    return found


def supervisors(lab: Lab) -> int:
    """Return how many supervisors a lab has."""
    count = 0
    for pid in processes(lab):
        with contextlib.suppress(OSError):  # one that ended meanwhile
            count += b"lab.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return count


def leftovers(lab: Lab) -> list[str]:
    """Return everything of the lab that is still on this machine."""
    spec, found = lab.spec, []
    if (cgroup.root() / spec.cgroup).exists():
        found.append(f"control group {spec.cgroup}")
    if spec.netns_path.exists():
        found.append(f"namespace {spec.netns}")
    if spec.folder.exists():
        found.append(f"folder {spec.folder}")
    devices = Path("/sys/block").glob("loop*/loop/backing_file")
    found += [f"loop device {device}" for device in devices if str(spec.folder) in device.read_text()]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mounts, argv = (folder / "mountinfo").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        if str(spec.folder) in mounts:
            found.append(f"mounts seen by process {folder.name}")
        if f"lab.supervisor\0--name\0{spec.name}\0" in argv:
            found.append(f"supervisor {folder.name}")
    return found
