"""The plugin's process: serves the provider to the engine that started it, and ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]  # ships no types
from grpc import aio
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import provider_pb2_grpc

from . import VERSION
from .engine import Engine
from .errors import CommandError
from .provider import CommandProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable

_PARENT_SECONDS = 1.0


class Servicer(ProviderServicer):
    """The SDK's servicer, with a CommandError's text as the whole message instead of a Python traceback."""

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # the protocol's names, here and below
        """Answer a Check call."""
        return await _told(super().Check(request, context), context)

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer a Create call."""
        return await _told(super().Create(request, context), context)  # type: ignore[no-untyped-call]  # the SDK's

    async def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer an Update call."""
        return await _told(super().Update(request, context), context)  # type: ignore[no-untyped-call]  # the SDK's

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer a Delete call."""
        return await _told(super().Delete(request, context), context)  # type: ignore[no-untyped-call]  # the SDK's


async def _told(answer: Awaitable[Any], context: Any) -> Any:
    try:
        return await answer
    except CommandError as error:
        await context.abort(grpc.StatusCode.UNKNOWN, str(error))


async def serve(engine_address: str) -> None:
    """Serve until the engine ends. Prints the port on stdout, which is how the engine learns it."""
    parent = os.getppid()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # At once: the engine has closed what it needed, and waits for us.
        loop.add_signal_handler(number, os._exit, 0)
    server = aio.server(options=_GRPC_CHANNEL_OPTIONS)
    engine = Engine(aio.insecure_channel(engine_address, options=_GRPC_CHANNEL_OPTIONS))
    servicer = Servicer([], VERSION, CommandProvider(engine), engine_address)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    while os.getppid() == parent:  # noqa: ASYNC110  # no event tells that the parent is gone
        await asyncio.sleep(_PARENT_SECONDS)
    # The engine was killed: nobody will ever stop this process.
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Start as the engine starts plugins: the last argument is its address. `--version` only answers."""
    if "--version" in arguments:
        sys.stdout.write(f"{VERSION}\n")
        return 0
    addresses = [argument for argument in arguments if not argument.startswith("-")]
    if not addresses:
        sys.stderr.write("this is a Pulumi plugin: the engine starts it with its address\n")
        return 2
    asyncio.run(serve(addresses[-1]))
    return 0
