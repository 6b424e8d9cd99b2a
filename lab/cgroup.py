"""The lab's control group: the one net that holds every process of a lab, whoever started it.

Works on the unified (cgroup2) tree wherever the machine has it mounted, hybrid setups included. Sets no limits.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from lab.errors import LabError


def find_root(mounts: str) -> Path | None:
    """Return the mount point of the cgroup2 tree in the text of /proc/mounts."""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2] == "cgroup2":  # noqa: PLR2004 -- device, folder, type
            return Path(fields[1])
    return None


def root() -> Path:
    """Return where the cgroup2 tree is mounted; LabError says how to mount it when it isn't."""
    found = find_root(Path("/proc/self/mounts").read_text(encoding="utf-8"))
    if found is None:
        message = "no cgroup2 tree is mounted; mount one: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2"
        raise LabError(message)
    return found


def create(group: str) -> Path:
    """Make the group (below the root) and return its folder."""
    folder = root() / group
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def inside(folder: Path, argv: list[str]) -> list[str]:
    """Return a command that joins the group before it becomes ``argv``: no process of it is ever outside."""
    return ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(folder), *argv]


def members(group: str) -> list[int]:
    """Return the processes that are directly in the group; none when there is no such group."""
    with contextlib.suppress(FileNotFoundError):
        return [int(pid) for pid in (root() / group / "cgroup.procs").read_text(encoding="ascii").split()]
    return []


def kill(group: str, *, seconds: float = 10) -> None:
    """SIGKILL everything in the group and below, and wait until it is empty.

    Raises LabError when something doesn't die within the time.
    """
    folder = root() / group
    try:
        (folder / "cgroup.kill").write_text("1", encoding="ascii")
    except FileNotFoundError:
        return
    deadline = time.monotonic() + seconds
    while _populated(folder):
        if time.monotonic() > deadline:
            message = f"processes in control group {folder} did not die within {seconds:.0f} s"
            raise LabError(message)
        time.sleep(0.02)


def freeze(group: str, *, frozen: bool, seconds: float = 10) -> None:
    """Stop everything in the group and below where it stands, or let it go on; wait until it is so.

    Nothing is told and nothing can refuse: to the others a frozen host's connections are open and silent. Frozen
    processes can still be killed. Raises LabError (and lets all go on) when one doesn't stop within the time.
    """
    folder = root() / group
    switch = folder / "cgroup.freeze"
    switch.write_text("1" if frozen else "0", encoding="ascii")
    deadline = time.monotonic() + seconds
    while is_frozen(group) != frozen:
        if time.monotonic() > deadline:
            switch.write_text("0", encoding="ascii")
            message = f"control group {folder} was not {'frozen' if frozen else 'thawed'} within {seconds:.0f} s"
            raise LabError(message)
        time.sleep(0.01)


def is_frozen(group: str) -> bool:
    """Say whether everything in the group stands still; a group that isn't there is not frozen."""
    try:
        return "frozen 1" in (root() / group / "cgroup.events").read_text(encoding="ascii")
    except FileNotFoundError:
        return False


def remove(group: str) -> None:
    """Remove the group and every one below it; all must be empty of processes."""
    folder = root() / group
    if not folder.is_dir():
        return
    for path, _folders, _files in os.walk(folder, topdown=False):
        for _attempt in range(100):  # the kernel lets go of a killed process a moment after it is gone
            try:
                with contextlib.suppress(FileNotFoundError):
                    Path(path).rmdir()
            except OSError:
                time.sleep(0.02)
            else:
                break
        else:
            message = f"control group {path} could not be removed"
            raise LabError(message)


def _populated(folder: Path) -> bool:
    try:
        return "populated 1" in (folder / "cgroup.events").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
