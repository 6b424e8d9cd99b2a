"""Knowing a process again: a number alone may belong to someone else by now."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_START_TIME_FIELD = 19  # of what follows the command's closing bracket in /proc/PID/stat: field 22 in all
_ZOMBIE = "Z"


@dataclass(frozen=True)
class Identity:
    """A process for good: its number, its start in clock ticks since boot, and which boot."""

    pid: int
    start: int
    boot: str


def boot_id() -> str:
    """Return the running kernel's boot identifier."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> Identity | None:
    """Return the identity of a living process, None when there is none (a zombie isn't alive)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] == _ZOMBIE:
        return None
    return Identity(pid, int(fields[_START_TIME_FIELD]), boot_id())


def alive(identity: Identity | None) -> bool:
    """Say whether exactly this process still runs."""
    return identity is not None and identify(identity.pid) == identity


def kill(identity: Identity) -> bool:
    """SIGKILL exactly this process; False when it is gone, or when its number is another one's by now."""
    try:
        # A descriptor holds on to the process, so that it cannot change between the check and the signal.
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait_gone(identities: Iterable[Identity], seconds: float) -> list[Identity]:
    """Wait until none of them runs; return those that still do after that many seconds."""
    deadline = time.monotonic() + seconds
    left = [item for item in identities if alive(item)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [item for item in left if alive(item)]
    return left


def save(path: Path, processes: Mapping[str, Identity]) -> None:
    """Write the record of started processes, at once and whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps({"format": 1, "processes": {key: asdict(value) for key, value in processes.items()}}, indent=2)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def load(path: Path) -> dict[str, Identity]:
    """Read the record; empty when there is none or it is damaged (the control group finds the rest)."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        data = json.loads(path.read_text(encoding="utf-8"))
        return {key: Identity(**value) for key, value in data["processes"].items()}
    return {}
