"""The machine as the applier sees it: commands, users, time. Tests put a fake of ``System`` in its place."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import selectors
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from hostkit.errors import CommandFailed, CommandTimeout, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OUTPUT_CAP = 1 << 20
"""Bytes kept of a command's output, each of stdout and stderr; what comes later is read and dropped."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "TZ": "UTC",
}
"""Environment of every command: nothing of the caller's session reaches it."""

_LINGER = 1.0
"""Seconds to wait for the end of output after the command itself ended (a daemon may hold its pipes)."""
_SHOWN_LINES = 15


@dataclass(frozen=True)
class Completed:
    """How a command ended; output is decoded as UTF-8, undecodable bytes replaced."""

    returncode: int
    stdout: str
    stderr: str


class System(Protocol):
    """What the applier needs from the machine besides files."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None = None,  # noqa: A002 - named as subprocess.run names it
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command without a shell, in a session of its own; ``env`` is added to ``ENVIRONMENT``.

        After ``timeout`` seconds its whole process group is killed: CommandTimeout. With ``check`` any other
        exit code than 0 is CommandFailed, showing the last lines of stderr. No secret may stand in ``argv``.
        ``progress`` gets each line of stderr as it comes.
        """
        ...

    def uid(self, name: str) -> int:
        """Return the number of a user; HostError when there is none of this name."""
        ...

    def gid(self, name: str) -> int:
        """Return the number of a group; HostError when there is none of this name."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that only goes forward."""
        ...


def last_lines(text: str, count: int = _SHOWN_LINES) -> str:
    """Return the last non-empty lines of a text, for error messages."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def failed(argv: Sequence[str], done: Completed) -> CommandFailed:
    """Return the error for a command that ended with another code than 0."""
    shown = last_lines(done.stderr) or last_lines(done.stdout) or "(no output)"
    return CommandFailed(f"{shlex.join(argv)} ended with exit code {done.returncode}: {shown}", done.returncode)


class RealSystem:
    """The machine itself."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None = None,  # noqa: A002 - named as subprocess.run names it
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Completed:
        """See ``System.run``."""
        deadline = time.monotonic() + timeout
        account = {} if user is None else _account(user)
        stdin = subprocess.DEVNULL if input is None else _in_memory(input)
        try:
            process = subprocess.Popen(  # noqa: S603 - no shell; argv comes from bundles and this package
                list(argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**ENVIRONMENT, **(env or {})},
                cwd="/",
                start_new_session=True,
                **account,  # type: ignore[call-overload]  # user, group and extra_groups, or nothing
            )
        except OSError as e:
            msg = f"cannot start {argv[0]}: {e.strerror}"
            raise CommandFailed(msg, 127) from e
        finally:
            if stdin >= 0:
                os.close(stdin)
        try:
            stdout, stderr = _collect(process, deadline, progress)
        except BaseException as e:
            _kill_group(process)
            if isinstance(e, TimeoutError):
                msg = f"{shlex.join(argv)} did not end within {timeout:g} s and was killed"
                raise CommandTimeout(msg) from None
            raise
        done = Completed(process.returncode, stdout, stderr)
        if check and done.returncode != 0:
            raise failed(argv, done)
        return done

    def uid(self, name: str) -> int:
        """See ``System.uid``."""
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            msg = f"there is no user {name!r} on this host"
            raise HostError(msg) from None

    def gid(self, name: str) -> int:
        """See ``System.gid``."""
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            msg = f"there is no group {name!r} on this host"
            raise HostError(msg) from None

    def sleep(self, seconds: float) -> None:
        """See ``System.sleep``."""
        time.sleep(seconds)

    def monotonic(self) -> float:
        """See ``System.monotonic``."""
        return time.monotonic()


def _account(user: str) -> dict[str, object]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        msg = f"there is no user {user!r} on this host"
        raise HostError(msg) from None
    groups = os.getgrouplist(user, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def _in_memory(text: str) -> int:
    """Return a descriptor that reads this text: no pipe to dead-lock on, nothing on a disk."""
    fd = os.memfd_create("stdin")
    with os.fdopen(os.dup(fd), "wb") as f:
        f.write(text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _collect(
    process: subprocess.Popen[bytes], deadline: float, progress: Callable[[str], None] | None
) -> tuple[str, str]:
    """Read both outputs until the end; TimeoutError after the deadline."""
    if process.stdout is None or process.stderr is None:  # both are pipes: for the type checker
        raise AssertionError
    kept: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    ended: float | None = None
    reported = 0
    with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
        for stream in kept:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            if ended is None and process.poll() is not None:
                ended = now
            if ended is not None and now > ended + _LINGER:
                break
            if now > deadline:
                raise TimeoutError
            for key, _ in selector.select(timeout=min(0.05 if ended is None else 0.01, max(0.0, deadline - now))):
                stream = next(s for s in kept if s is key.fileobj)
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(stream)
                kept[stream] += chunk[: OUTPUT_CAP - len(kept[stream])]
            reported = _report(kept[process.stderr], reported, progress)
        try:
            process.wait(timeout=max(0.01, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        return kept[process.stdout].decode(errors="replace"), kept[process.stderr].decode(errors="replace")


def _report(output: bytearray, reported: int, progress: Callable[[str], None] | None) -> int:
    """Pass on the whole lines beyond ``reported`` bytes; return how far it is passed on now."""
    complete = output.rfind(b"\n") + 1
    if progress is None or complete <= reported:
        return reported
    for line in output[reported:complete].decode(errors="replace").splitlines():
        progress(line)
    return complete


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
