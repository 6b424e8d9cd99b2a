"""Loads the whole program under Pulumi mocks, once a stack file, and records what it registers."""

from __future__ import annotations

import asyncio
import json
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import json_format  # type: ignore[import-untyped]  # no stubs
from pulumi.runtime import mocks, rpc, settings
from pulumi.runtime import stack as stack_module

from keadb import secrets

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
STACKS = ("us1", "us2", "us3", "us4", "dv")
SECRET_MARK = "1b47061264138c4ac30d75fd1eb44270"
SIGNATURE_KEY = "4dabf18193072939515e22adb298388d"


def is_secret(value: Any) -> bool:
    """Say whether an input arrived as a Pulumi secret."""
    return isinstance(value, dict) and value.get(SIGNATURE_KEY) == SECRET_MARK


def unwrap(value: Any) -> Any:
    """Return the value inside a secret, or the value itself."""
    return value["value"] if is_secret(value) else value


@dataclass
class Registered:
    """A resource as the program registered it: inputs as the provider would see them, options as the engine would."""

    type: str
    name: str
    parent: str
    inputs: dict[str, Any]
    dependencies: list[str]
    options: Any

    @property
    def urn(self) -> str:
        """Return a URN in the form of the mock engine."""
        return f"urn:pulumi:stack::project::{self.type}::{self.name}"


@dataclass
class Program:
    """Everything one run of the program registered, and its exports."""

    stack: str
    site: dict[str, Any]
    secrets: dict[str, str]
    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def commands(self) -> list[Registered]:
        """Return the remote commands in order of registration."""
        return [r for r in self.resources if r.type == "command:remote:Command"]

    def bundles(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return every bundle that is sent, by host and bundle name."""
        sent = {}
        for command in self.commands():
            stdin = unwrap(command.inputs.get("stdin"))
            if isinstance(stdin, str) and stdin.startswith("{"):
                request = json.loads(stdin)
                if "bundle" in request:
                    sent[request["host"], request["bundle"]] = request
        return sent


class _Monitor(mocks.MockMonitor):
    """Keeps each registration request, since resource options never reach the mocks themselves."""

    def __init__(self, mock: mocks.Mocks, program: Program) -> None:
        super().__init__(mock)
        self.program = program

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the SDK's name
        self.program.resources.append(
            Registered(
                type=request.type,
                name=request.name,
                parent=request.parent,
                inputs=json_format.MessageToDict(request.object),
                dependencies=list(request.dependencies),
                options=request,
            )
        )
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]  # the SDK has no types here

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802 - the SDK's name
        if "::pulumi:pulumi:Stack::" in request.urn:
            self.program.outputs.update(json_format.MessageToDict(request.outputs))
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]  # likewise


class _Mocks(mocks.Mocks):
    """Answers like hosts would: the keys command returns real signing requests."""

    def __init__(self, *, unknown: bool) -> None:
        self.unknown = unknown

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        """No program of ours calls a function of a provider."""
        raise AssertionError(args.token)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        """Return an id and the outputs of a resource."""
        if args.typ != "command:remote:Command":
            return f"{args.name}-id", dict(args.inputs)
        if self.unknown:
            return f"{args.name}-id", {**args.inputs, "stdout": rpc.UNKNOWN, "stderr": rpc.UNKNOWN}
        stdout = ""
        if args.name.endswith("-keys"):
            names = json.loads(unwrap(args.inputs["stdin"]))["names"]
            stdout = json.dumps({"requests": {name: signing_request(name) for name in names}})
        return f"{args.name}-id", {**args.inputs, "stdout": stdout, "stderr": ""}


_KEY = ec.derive_private_key(20260101, ec.SECP256R1())


def signing_request(name: str) -> str:
    """Return a PEM signing request as a host makes it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(_KEY, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


_VALUES = {spec.name: secrets.generate(spec) for spec in secrets.SECRETS}


def load_program(
    stack: str, *, unknown: bool = False, change: Callable[[dict[str, Any]], None] | None = None
) -> Program:
    """Run ``__main__.py`` for one stack file; ``unknown`` is a first preview; ``change`` edits the site first."""
    config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    site = config["keadb:site"]
    if change:
        change(site)
    program = Program(stack=stack, site=site, secrets=_VALUES)
    values = {"keadb:site": json.dumps(site, default=str)} | {
        f"keadb:secret_{name}": value for name, value in _VALUES.items()
    }
    asyncio.set_event_loop(asyncio.new_event_loop())
    mock = _Mocks(unknown=unknown)
    # The SDK keeps the root of the program that was loaded before, in which this one's would not be registered.
    settings.set_root_resource(None)  # type: ignore[arg-type]  # this is how it begins itself
    mocks.set_mocks(mock, project="keadb", stack=stack, preview=unknown, monitor=_Monitor(mock, program))
    pulumi.runtime.set_all_config(values, secret_keys=[key for key in values if "secret_" in key])

    @pulumi.runtime.test  # type: ignore[untyped-decorator]  # the SDK has no types here
    def run() -> None:
        runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")
        export_what_was_asked_for()

    run()
    return program


def export_what_was_asked_for() -> None:
    """Register the stack's outputs, as the engine's own runner does when the program has ended."""
    root = settings.get_root_resource()
    assert isinstance(root, stack_module.Stack)
    root.register_outputs(root.outputs)
