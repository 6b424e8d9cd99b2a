"""Exit codes of ``keadb`` and the one error type that carries a code. See docs/operations.md for the table."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What an exit code means, the same for every command."""

    OK = 0
    """Done; healthy; nothing to change where that was asked."""
    FAILED = 1
    """The operation failed, problems were found, or the cluster is unhealthy."""
    CHANGES = 2
    """``--expect-no-changes`` found changes; ``drift`` found differences."""
    UNREACHABLE = 3
    """``status``, ``drift``: at least one host did not answer, so the site's state is unknown."""
    USAGE = 64
    """The command line is wrong, or names a stack that does not exist."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C."""


class CommandError(Exception):
    """An error that people see: one clear message, no traceback, an exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code
