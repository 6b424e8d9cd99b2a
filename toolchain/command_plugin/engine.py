"""Lines for the engine's log, sent in order and without holding up the command that prints them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc  # type: ignore[import-untyped]  # ships no types
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

if TYPE_CHECKING:
    from grpc import aio


class Engine:
    """The engine that started this plugin."""

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = engine_pb2_grpc.EngineStub(channel)

    def log(self, urn: str) -> Log:
        """Open a log for one resource; its `flush` must be awaited at the end."""
        return Log(self._stub, urn)


class Log:
    """One resource's log lines."""

    def __init__(self, stub: engine_pb2_grpc.EngineStub, urn: str) -> None:
        self._stub = stub
        self._urn = urn
        self._waiting: asyncio.Queue[engine_pb2.LogRequest | None] = asyncio.Queue()
        self._sender = asyncio.ensure_future(self._send())

    def status(self, line: str) -> None:
        """Show a line beside the resource while it is worked on."""
        self._put(engine_pb2.INFO, line, ephemeral=True)

    def warning(self, line: str) -> None:
        """Show a line that stays in the run's diagnostics."""
        self._put(engine_pb2.WARNING, line, ephemeral=False)

    async def flush(self) -> None:
        """Wait until all lines are sent."""
        self._waiting.put_nowait(None)
        await self._sender

    def _put(self, severity: engine_pb2.LogSeverity.ValueType, line: str, *, ephemeral: bool) -> None:
        self._waiting.put_nowait(
            engine_pb2.LogRequest(severity=severity, message=line, urn=self._urn, ephemeral=ephemeral)
        )

    async def _send(self) -> None:
        while (request := await self._waiting.get()) is not None:
            # A line that the engine does not take any more is no reason to fail the command.
            with contextlib.suppress(grpc.RpcError):
                await self._stub.Log(request)
