"""Runs one command on a host over SSH and collects its output."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncssh
from asyncssh.channel import SSHClientChannel
from asyncssh.packet import String

from .connection import Connection, dial
from .errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW: Final = 2 * 1024 * 1024
_PACKET: Final = 32 * 1024
# What asyncssh's channels take beside the command: no terminal (type, size, modes), no X11, no agent.
_NO_TERMINAL: Final[tuple[Any, ...]] = (False, None, None, {}, False, None, None, False, False)
_CLOSE_SECONDS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command for a host. `environment` must be accepted by the host, `optional` may be refused."""

    command: str
    connection: Connection
    stdin: str = field(default="", repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    optional: dict[str, str] = field(default_factory=dict, repr=False)
    log_stdout: bool = True
    log_stderr: bool = True
    timeout: float = 0


@dataclass(frozen=True)
class Output:
    """What a command printed, without the last newline of each."""

    stdout: str
    stderr: str


async def run(
    job: Job, *, log: Callable[[str], None], warn: Callable[[str], None], cancelled: asyncio.Event
) -> Output:
    """Run a command to its end. Raises CommandError: with its output if it ran, never with its stdin."""
    connection = await dial(job.connection, log=log, cancelled=cancelled, seconds=job.timeout)
    try:
        session = _Session(job, log)
        channel = _Channel(job, warn, connection)
        try:
            await channel.create(lambda: session, job.command, None, {}, *_NO_TERMINAL)
            channel.write(job.stdin.encode())
            channel.write_eof()
        except BrokenPipeError:
            pass  # the command ended without reading its input: its exit status tells
        except asyncssh.Error as error:
            message = f"ssh: session on {job.connection.endpoint} failed: {error.reason}"
            raise CommandError(message) from error
        await channel.wait_closed()
        return session.result()
    finally:
        connection.close()
        try:
            await asyncio.wait_for(connection.wait_closed(), _CLOSE_SECONDS)
        except (TimeoutError, OSError, asyncssh.Error):
            connection.abort()


class _Channel(SSHClientChannel[bytes]):
    """A session channel that asks for each environment variable and waits for the answer.

    asyncssh itself sends them without asking, so that a host's refusal would go unseen; the official plugin
    fails on it, before the command is run.
    """

    def __init__(self, job: Job, warn: Callable[[str], None], connection: asyncssh.SSHClientConnection) -> None:
        super().__init__(connection, asyncio.get_running_loop(), "strict", None, "strict", _WINDOW, _PACKET)
        self._job = job
        self._warn = warn

    async def _make_request(self, request: bytes, *args: bytes) -> bool | None:
        if request == b"exec":
            for name, value in self._job.environment.items():
                if not await super()._make_request(b"env", String(name), String(value)):
                    self._warn(_refused(name))
                    self.abort()
                    message = f'could not set environment variable "{name}": ssh: setenv failed'
                    raise CommandError(message)
            for name, value in self._job.optional.items():
                if not await super()._make_request(b"env", String(name), String(value)):
                    self._warn(_refused(name))
        return await super()._make_request(request, *args)


def _refused(name: str) -> str:
    return (
        f"Unable to set '{name}': the SSH server takes only variables that its AcceptEnv names. "
        "Alternatively put 'VAR=value' before the command itself"
    )


class _Session(asyncssh.SSHClientSession[bytes]):
    """Collects what a command prints and how it ended; gives complete lines to the log as they come."""

    def __init__(self, job: Job, log: Callable[[str], None]) -> None:
        self._job = job
        self._log = log
        self._parts: dict[bool, bytearray] = {False: bytearray(), True: bytearray()}  # by "is stderr"
        self._both = bytearray()
        self._line: dict[bool, bytearray] = {False: bytearray(), True: bytearray()}
        self._ending: str | None = None
        self._status: int | None = None

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        is_stderr = datatype == asyncssh.EXTENDED_DATA_STDERR
        self._parts[is_stderr] += data
        self._both += data
        if not (self._job.log_stderr if is_stderr else self._job.log_stdout):
            return
        line = self._line[is_stderr]
        line += data
        *complete, rest = bytes(line).split(b"\n")
        for text in complete:
            self._log(_text(text.removesuffix(b"\r")))
        self._line[is_stderr] = bytearray(rest)

    def exit_status_received(self, status: int) -> None:
        self._status = status
        if status:
            self._ending = f"Process exited with status {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: FBT001  # asyncssh's signature
        del core_dumped, lang
        self._ending = f"Process exited from signal {signal}" + (f". Reason was: {msg}" if msg else "")

    def connection_lost(self, exc: Exception | None) -> None:
        for line in self._line.values():
            if line:
                self._log(_text(bytes(line)))
                line.clear()
        if self._status is None and self._ending is None:
            why = f" ({exc})" if exc else ""
            self._ending = f"wait: remote command exited without exit status or exit signal{why}"

    def result(self) -> Output:
        """Return the output; raise CommandError unless the command ended with status 0."""
        if self._ending is not None:
            quoted = json.dumps(self._job.command, ensure_ascii=False)
            message = f"{self._ending}: running {quoted}:\n{_text(bytes(self._both))}"
            raise CommandError(message)
        return Output(
            _text(bytes(self._parts[False])).removesuffix("\n"), _text(bytes(self._parts[True])).removesuffix("\n")
        )


def _text(data: bytes) -> str:
    """Decode output; the engine takes valid Unicode only."""
    return data.decode(errors="replace")
