"""What a killed run leaves with the engine: its lock, and operations of which nobody knows whether they happened.

The engine itself gives up on the first and warns about the second for ever. What a killed run leaves on hosts is the
applier's business, which repeats or waits for it.
"""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

if TYPE_CHECKING:
    from ops.events import Run
    from ops.pulumi_cli import Engine

LOCKED = re.compile(r"created by \S*@(?P<host>\S+) \(pid (?P<pid>\d+)\)")
PENDING = re.compile(r"resources with (\d+) pending operations")
_DEAD = frozenset("ZX")
_PROC = Path("/proc")


def stale_lock(error: str, backend_url: str, *, proc: Path = _PROC) -> int | None:
    """Return the process id of a lock whose holder died on this machine, None when it may still be held.

    Only a backend in a folder names its holder in a way that can be checked, and only on the holder's machine.
    """
    if "currently locked" not in error or urlparse(backend_url).scheme != "file":
        return None
    holders = [(m["host"], int(m["pid"])) for m in LOCKED.finditer(error)]
    if not holders or any(host != socket.gethostname() or _alive(pid, proc) for host, pid in holders):
        return None
    return holders[0][1]


def _alive(pid: int, proc: Path) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # Name in brackets, then the state. A killed process that nobody has waited for yet is still listed.
        name, _, rest = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
    except FileNotFoundError:
        return False  # it ended between the two looks
    except OSError:
        return True
    # A process id is used again; only a Pulumi process can hold the lock.
    return rest.split()[0] not in _DEAD and "pulumi" in name


def settle_pending(engine: Engine, run: Run, *, done: bool) -> None:
    """Put the engine's advice about interrupted operations into our words, and forget them once all went well.

    The engine cannot know whether an interrupted creation happened, and would warn for ever. Our steps can be
    repeated, and the run that just ended has repeated them.
    """
    for index, warning in enumerate(run.warnings):
        if found := PENDING.search(warning):
            steps = "1 step was" if found[1] == "1" else f"{found[1]} steps were"
            run.warnings[index] = f"{steps} interrupted in an earlier run; each is safe to repeat"
            if done:
                state = json.loads(engine.call("stack", "export"))
                state["deployment"].pop("pending_operations", None)
                engine.call("stack", "import", stdin=json.dumps(state))
            return
