"""What can go wrong on a host, each kind with its exit code, and a wrapper that says where it did."""

# ruff: noqa: N818 - named for the outcome (refused, locked), not for being an error

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class HostError(Exception):
    """Something failed; the message is one that the operator can act on. Exit code 1."""

    exit_code = 1


class BadInput(HostError):
    """What was given is not what this applier reads: says what was given and what is allowed. Exit code 2."""

    exit_code = 2


class Refused(HostError):
    """Going on would do harm; nothing has been changed. Exit code 3."""

    exit_code = 3


class Locked(HostError):
    """Another run holds the host's lock for too long. Exit code 75 (try again later)."""

    exit_code = 75


class CommandFailed(HostError):
    """A command ended with another exit code than 0, or could not be started (code 127)."""

    def __init__(self, message: str, returncode: int) -> None:
        super().__init__(message)
        self.returncode = returncode


class CommandTimeout(HostError):
    """A command did not end within its limit; it and all its children were killed."""


@contextmanager
def during(what: str) -> Iterator[None]:
    """Put ``what`` in front of any error raised inside, and turn unexpected ones into a HostError.

    The kind of a HostError (and so its exit code) is kept. Signals and SystemExit pass untouched.
    """
    try:
        yield
    except HostError as e:
        e.args = (f"{what}: {e}", *e.args[1:])
        raise
    except Exception as e:
        msg = f"{what}: {type(e).__name__}: {e}"
        raise HostError(msg) from e
