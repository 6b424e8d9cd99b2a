"""What the engine asks of the plugin: check, diff, create, update, delete of `command:remote:Command`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pulumi.provider.experimental import provider
from pulumi.provider.experimental.property_value import Computed, PropertyValue
from pulumi.runtime import rpc

from . import inputs
from .connection import Connection
from .errors import CommandError
from .run import Job, Output, run

if TYPE_CHECKING:
    from .engine import Engine

TYPE: Final = "command:remote:Command"
# What the official plugin puts into its provider resource; the same here, so that a stack can change from
# one to the other without a difference.
_PROVIDER_KEY: Final = "__pulumi-go-provider-version"
_PROVIDER_VALUE: Final = "1.2.0"


class CommandProvider(provider.Provider):
    """Serves `command:remote:Command`. Every call is a coroutine of its own: commands run side by side."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._cancelled = asyncio.Event()

    async def cancel(self) -> None:
        """Stop waiting for hosts; commands that run already are left to end, as officially."""
        self._cancelled.set()

    async def check_config(self, request: provider.CheckRequest) -> provider.CheckResponse:
        """Accept any configuration; there is none."""
        return provider.CheckResponse({**request.new_inputs, _PROVIDER_KEY: PropertyValue(_PROVIDER_VALUE)})

    async def diff_config(self, request: provider.DiffRequest) -> provider.DiffResponse:
        """Say that nothing about the provider itself can differ."""
        del request
        return provider.DiffResponse(changes=False)

    async def configure(self, request: provider.ConfigureRequest) -> provider.ConfigureResponse:
        """Say that secrets stay wrapped, and that previews are answered."""
        del request
        return provider.ConfigureResponse(accept_secrets=True, supports_preview=True)

    async def check(self, request: provider.CheckRequest) -> provider.CheckResponse:
        """Fill in defaults, mark the connection a secret, and refuse what is wrong."""
        _served(request.type)
        return provider.CheckResponse(
            _wire(inputs.with_defaults(request.new_inputs)), inputs.problems(request.new_inputs)
        )

    async def diff(self, request: provider.DiffRequest) -> provider.DiffResponse:
        """Compare the stored inputs with the new ones: any change updates, a changed trigger replaces."""
        new = dict(request.new_inputs)
        for ignored in request.ignore_changes:
            if ignored in request.old_state:
                new[ignored] = request.old_state[ignored]
        found = inputs.difference(request.old_state, new)
        replaces = [path for path in found if path.startswith("triggers")]
        return provider.DiffResponse(changes=bool(found), replaces=replaces, diffs=sorted(found), detailed_diff=found)

    async def create(self, request: provider.CreateRequest) -> provider.CreateResponse:
        """Run `create`, if any. A failure leaves nothing in the state."""
        _served(request.type)
        made = f"{request.name}{secrets.token_hex(4)}"
        if request.preview:
            return provider.CreateResponse(made, _wire({**request.properties, **_unknown_outputs()}))
        output = Output("", "")
        command = inputs.plain(request.properties.get("create"))
        if command is not None:
            output = await self._run(request.urn, command, request.properties, None, request.timeout)
        return provider.CreateResponse(made, {**request.properties, **_outputs(output)})

    async def update(self, request: provider.UpdateRequest) -> provider.UpdateResponse:
        """Run `update`, else `create` again; with neither, the earlier output stays."""
        _served(request.type)
        if request.preview:
            return provider.UpdateResponse(_wire({**request.news, **_unknown_outputs()}))
        before = _previous(request.olds)
        command = inputs.plain(request.news.get("update"))
        if command is None:
            command = inputs.plain(request.news.get("create"))
        output = before
        if command is not None:
            output = await self._run(request.urn, command, request.news, before, request.timeout)
        return provider.UpdateResponse({**request.news, **_outputs(output)})

    async def delete(self, request: provider.DeleteRequest) -> None:
        """Run `delete`, if any."""
        _served(request.type)
        command = inputs.plain(request.properties.get("delete"))
        if command is not None:
            before = _previous(request.properties)
            await self._run(request.urn, command, request.properties, before, request.timeout)

    async def read(self, request: provider.ReadRequest) -> provider.ReadResponse:
        """Return what is stored: a command has no state of its own to look at."""
        return provider.ReadResponse(request.resource_id, request.properties, request.inputs)

    async def _run(
        self,
        urn: str,
        command: str,
        properties: Mapping[str, PropertyValue],
        before: Output | None,
        seconds: float,
    ) -> Output:
        given = {key: inputs.plain(value) for key, value in properties.items()}
        logging = given.get("logging") or "stdoutAndStderr"
        optional: dict[str, str] = {}
        if before is not None and given.get("addPreviousOutputInEnv") is not False:
            named = {"PULUMI_COMMAND_STDOUT": before.stdout, "PULUMI_COMMAND_STDERR": before.stderr}
            optional = {name: value for name, value in named.items() if value}
        job = Job(
            command=command,
            connection=Connection.from_input(given["connection"]),
            stdin=given.get("stdin") or "",
            environment={key: value or "" for key, value in (given.get("environment") or {}).items()},
            optional=optional,
            log_stdout=logging in {"stdout", "stdoutAndStderr"},
            log_stderr=logging in {"stderr", "stdoutAndStderr"},
            timeout=seconds,
        )
        log = self._engine.log(urn)
        try:
            return await run(job, log=log.status, warn=log.warning, cancelled=self._cancelled)
        finally:
            await log.flush()


def _served(kind: str) -> None:
    """Refuse what this plugin does not serve. The engine names a component's child ``Parent$Type``."""
    if kind.rpartition("$")[2] != TYPE:
        message = f"keadb's own command plugin serves {TYPE} only, not {kind}: the official one is needed for it"
        raise CommandError(message)


def _unknown_outputs() -> dict[str, PropertyValue]:
    return {name: PropertyValue.computed() for name in inputs.OUTPUTS}


def _wire(properties: Mapping[str, PropertyValue]) -> dict[str, PropertyValue]:
    """Return the properties with unknown values as the engine writes them: the SDK reads but never writes them."""
    return {name: _wire_value(value) for name, value in properties.items()}


def _wire_value(value: PropertyValue) -> PropertyValue:
    inner = value.value
    if isinstance(inner, Computed):
        return value.with_value(rpc.UNKNOWN)
    if isinstance(inner, Mapping):
        return value.with_value(_wire(inner))
    if isinstance(inner, (tuple, list)):
        return value.with_value([_wire_value(item) for item in inner])
    return value


def _outputs(output: Output) -> dict[str, PropertyValue]:
    return {"stdout": PropertyValue(output.stdout), "stderr": PropertyValue(output.stderr)}


def _previous(properties: Mapping[str, PropertyValue]) -> Output:
    return Output(*(str(inputs.plain(properties.get(name)) or "") for name in inputs.OUTPUTS))
