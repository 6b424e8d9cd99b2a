"""Where and through what a verb works: the root of the file system, and the system it calls."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hostkit.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostkit.system import System


def normalised(path: str) -> bool:
    """Say whether this is a file's absolute, normalised path: no ``..``, no ``//``, no NUL, not the root."""
    clean = path.startswith("/") and not path.startswith("//") and path != "/"
    return clean and posixpath.normpath(path) == path and path.isprintable()


def silent(_line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Context:
    """A root (``/`` on a host, a temporary folder in tests) and the system that commands go to."""

    root: Path
    system: System
    lock_wait: float = 300.0
    """Seconds to wait for another run on this host."""
    say: Callable[[str], None] = silent
    """Takes lines of progress for whoever watches; never a secret."""

    def path(self, absolute: str) -> Path:
        """Map a host's path under the root; raises BadInput unless it is absolute and normalised."""
        if not normalised(absolute):
            msg = f"path {absolute!r}: given is not an absolute, normalised, printable path such as /etc/x"
            raise BadInput(msg)
        return self.root / absolute.removeprefix("/")

    @property
    def in_place(self) -> bool:
        """Whether this works on the machine itself and not under a temporary root."""
        return self.root == Path("/")
