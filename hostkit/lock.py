"""One change at a time on a host: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hostkit.errors import Locked
from hostkit.files import make_parents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostkit.context import Context

LOCK = "/run/keadb/lock"
_PAUSE = 0.2


@contextmanager
def held(ctx: Context, what: str, path: str = LOCK) -> Iterator[None]:
    """Hold the host's lock; ``what`` is shown to others that wait. Locked when ``ctx.lock_wait`` has passed.

    ``path`` is another lock than the host's, for what must go on while a bundle is applied. Not re-entrant: the
    commands that a bundle's steps run must not take the host's. No child process inherits it.
    """
    make_parents(ctx, path)
    fd = os.open(ctx.path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(ctx, fd, what)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{what} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _take(ctx: Context, fd: int, what: str) -> None:
    deadline = ctx.system.monotonic() + ctx.lock_wait
    said = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if ctx.system.monotonic() >= deadline:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "an unknown run"
                msg = (
                    f"{what}: waited {ctx.lock_wait:g} s for the lock of this host, held by {holder}; try again later"
                )
                raise Locked(msg) from None
            if not said:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another run"
                ctx.say(f"waiting for {holder} to end")
                said = True
            ctx.system.sleep(_PAUSE)
        else:
            return
