"""SSH connections: dialling with retries, host key pinning, authentication."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncssh

from .errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FIRST_WAIT: Final = 0.1
_WAIT_GROWTH: Final = 1.5
_LONGEST_WAIT: Final = 5.0
# The official plugin waits for ever in a handshake and on a dead connection; a host that was switched off
# would hang the run. Handshakes are given a minute; a silent connection is given up after two.
_HANDSHAKE_SECONDS: Final = 60
_KEEPALIVE_SECONDS: Final = 30
_KEEPALIVE_COUNT: Final = 4


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a host; secrets are not in its repr. Numbers: seconds; `dial_error_limit` -1 is endless."""

    host: str
    user: str = "root"
    port: int = 22
    host_key: str | None = None
    private_key: str | None = field(default=None, repr=False)
    private_key_password: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    dial_error_limit: int = 10
    per_dial_timeout: float = 15

    @classmethod
    def from_input(cls, given: Mapping[str, Any]) -> Connection:
        """Read the `connection` input (checked before, so types are right)."""

        def number(key: str, default: float) -> float:
            value = given.get(key)
            return default if value is None else float(value)

        return cls(
            host=given["host"],
            user=given.get("user") or "root",
            port=int(number("port", 22)),
            host_key=given.get("hostKey"),
            private_key=given.get("privateKey"),
            private_key_password=given.get("privateKeyPassword"),
            password=given.get("password"),
            dial_error_limit=int(number("dialErrorLimit", 10)),
            per_dial_timeout=number("perDialTimeout", 15),
        )

    @property
    def endpoint(self) -> str:
        """Return host and port as messages show them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def dial(
    connection: Connection, *, log: Callable[[str], None], cancelled: asyncio.Event, seconds: float
) -> asyncssh.SSHClientConnection:
    """Connect and authenticate, trying again after any error, N + 1 times in all.

    `seconds` (0: no limit) bounds the tries, not a single one. Raises CommandError.
    """
    options = _options(connection)  # unreadable keys fail here, before any dial
    deadline = time.monotonic() + seconds if seconds > 0 else None
    limit = connection.dial_error_limit
    wait = _FIRST_WAIT
    for failed in itertools.count():
        try:
            return await _connect(connection, options)
        except (OSError, asyncssh.Error, ValueError) as error:
            if -1 < limit <= failed:
                message = f"after {failed} failed attempts: {_describe(connection, error)}"
                raise CommandError(message) from error
            if deadline is not None and time.monotonic() + wait > deadline:
                message = f"context deadline exceeded: {_describe(connection, error)}"
                raise CommandError(message) from error
        log(f"Dial {failed + 1}/{'inf' if limit == -1 else limit} failed: retrying")
        await _sleep(wait, connection, cancelled)
        wait = min(wait * _WAIT_GROWTH, _LONGEST_WAIT)
    raise AssertionError  # count() does not end


async def _sleep(seconds: float, connection: Connection, cancelled: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(cancelled.wait(), seconds)
    except TimeoutError:
        return
    message = f"cancelled while waiting for {connection.endpoint}"
    raise CommandError(message)


async def _connect(connection: Connection, options: Mapping[str, Any]) -> asyncssh.SSHClientConnection:
    # The dial limit is for TCP alone, as officially; so the socket is made here.
    opened = await _socket(connection)
    try:
        return await asyncssh.connect(sock=opened, host=connection.host, port=connection.port, **options)
    except BaseException:
        opened.close()
        raise


async def _socket(connection: Connection) -> socket.socket:
    """Open a TCP connection to the first address that answers."""
    loop = asyncio.get_running_loop()
    limit = connection.per_dial_timeout
    error: OSError | None = None
    try:
        async with asyncio.timeout(limit or None):  # 0 means no limit, as officially
            found = await loop.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, address in found:
                opened = socket.socket(family, kind, protocol)
                opened.setblocking(False)  # noqa: FBT003  # socket's signature
                try:
                    await loop.sock_connect(opened, address)
                except OSError as failure:
                    opened.close()
                    error = failure
                except BaseException:
                    opened.close()
                    raise
                else:
                    return opened
    except TimeoutError as failure:
        message = f"no answer in {limit:g} s"
        raise OSError(message) from failure
    raise error or OSError("no address")


def _options(connection: Connection) -> dict[str, Any]:
    """Work out what asyncssh is told. Nothing of the caller's SSH settings, keys or agent is used."""
    options: dict[str, Any] = {
        "username": connection.user,
        "config": None,
        "agent_path": None,
        "client_keys": None,
        "known_hosts": None,
        "gss_host": None,
        "login_timeout": _HANDSHAKE_SECONDS,
        "keepalive_interval": _KEEPALIVE_SECONDS,
        "keepalive_count_max": _KEEPALIVE_COUNT,
    }
    if connection.host_key is not None:
        try:
            key = asyncssh.import_public_key(connection.host_key)
        except (asyncssh.KeyImportError, ValueError) as error:
            message = f"connection.hostKey for {connection.endpoint} is no public key: {error}"
            raise CommandError(message) from error
        # With a trusted key given, only its type is negotiated.
        options["known_hosts"] = ([key], [], [])
    if connection.private_key is not None:
        try:
            options["client_keys"] = [
                asyncssh.import_private_key(connection.private_key, connection.private_key_password)
            ]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
            # Without the cause: its text may hold a part of the key.
            message = f"connection.privateKey for {connection.endpoint} cannot be read"
            raise CommandError(message) from None
    if connection.password is not None:
        options["password"] = connection.password
    return options


def _describe(connection: Connection, error: Exception) -> str:
    """Say what went wrong, always with the endpoint."""
    where = connection.endpoint
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return (
            f"ssh: handshake with {where} failed: host key mismatch: it does not have the key of connection.hostKey"
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return f"ssh: handshake with {where} failed: unable to authenticate as {connection.user}"
    if isinstance(error, asyncssh.Error):
        return f"ssh: handshake with {where} failed: {error.reason or type(error).__name__}"
    if isinstance(error, OSError) and error.strerror:
        return f"dial tcp {where}: {error.strerror}"
    return f"dial tcp {where}: {error}"
