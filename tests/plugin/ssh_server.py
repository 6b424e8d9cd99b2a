"""A throw-away SSH server on loopback, inside the test process, that really runs what it is asked to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import asyncssh

if TYPE_CHECKING:
    from pathlib import Path


class SshServer:
    """Runs commands with /bin/sh in `folder`, for one user with one key, on a port of its own.

    `commands` lists what was run, `seen_env` the variables asked for, `connections` counts accepted dials.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.second_host_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        # As it goes into `connection.privateKey`; exported once, because every export differs by a random number.
        self.private_key = self.client_key.export_private_key().decode()
        self.commands: list[str] = []
        self.seen_env: list[dict[str, str]] = []
        self.connections = 0
        self._open: list[asyncssh.SSHServerConnection] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._children: list[asyncio.subprocess.Process] = []
        self._acceptor: asyncssh.SSHAcceptor | None = None

    @property
    def public_host_key(self) -> str:
        """The host key's line, as it goes into `connection.hostKey`."""
        return self.host_key.export_public_key().decode().strip()

    def start(self) -> None:
        """Listen; before this, dials are refused."""
        self._acceptor = self._run(self._listen())

    def stop(self) -> None:
        """Listen no more, and end the loop."""

        async def close() -> None:
            if self._acceptor is not None:
                self._acceptor.close()
                await self._acceptor.wait_closed()
            # A command whose client was killed still runs.
            for child in self._children:
                if child.returncode is None:
                    os.killpg(child.pid, signal.SIGKILL)  # with what it started: they hold its pipes
                    await child.wait()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def drop(self) -> None:
        """Break every connection off, as a host does that dies."""
        for conn in self._open:
            self._loop.call_soon_threadsafe(conn.abort)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> asyncssh.SSHAcceptor:
        server = self

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                server.connections += 1
                server._open.append(conn)

        authorized = asyncssh.import_authorized_keys(self.client_key.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=Login,
            server_host_keys=[self.second_host_key, self.host_key],
            authorized_client_keys=authorized,
            process_factory=self._handle,
            encoding=None,
        )

    async def _handle(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        self.commands.append(command)
        environment = {str(key): str(value) for key, value in process.env.items()}
        self.seen_env.append(environment)
        child = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", command, cwd=self.folder, env={**os.environ, **environment},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._children.append(child)
        feeding = asyncio.ensure_future(_feed(process, child))
        await asyncio.gather(_pump(child.stdout, process.stdout), _pump(child.stderr, process.stderr))
        status = await child.wait()
        feeding.cancel()
        process.exit(status)


async def _feed(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
    """Give the child what the client sends, as long as it reads it."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while data := await process.stdin.read(65536):
            child.stdin.write(data)
            await child.stdin.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.stdin.close()


async def _pump(source: asyncio.StreamReader | None, target: asyncssh.SSHWriter[bytes]) -> None:
    assert source is not None
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
