"""The real CLI, driven through the Automation API, over the plugin that KEADB_COMMAND_PLUGIN names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi_command as command
import pytest
from pulumi import Output, ResourceOptions, automation

from tests.plugin.ssh_server import SshServer
from toolchain import cli, environment, paths, plugin, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CommandError = automation.errors.CommandError


@pytest.fixture(scope="session")
def plugin_binary() -> Path:
    """Return the plugin under test."""
    named = os.environ.get("KEADB_COMMAND_PLUGIN")
    binary = Path(named) if named else paths.plugin_dir() / plugin.EXECUTABLE
    if not os.access(binary, os.X_OK):
        pytest.fail(f"{binary} is no executable: run `make setup`, or let KEADB_COMMAND_PLUGIN name a plugin")
    return binary


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    """A server that is not listening yet."""
    folder = tmp_path / "host"
    folder.mkdir()
    made = SshServer(folder)
    yield made
    made.stop()


@pytest.fixture
def host(server: SshServer) -> SshServer:
    """A listening server."""
    server.start()
    return server


class Secret(str):
    """A string that the program marks as a secret (outputs can be made inside the program only)."""

    __slots__ = ()


def _input(value: Any) -> Any:
    return Output.secret(str(value)) if isinstance(value, Secret) else value


def inputs(connection: dict[str, Any]) -> command.remote.ConnectionArgs:
    """Turn a described connection into what a command takes; inside a program only."""
    return command.remote.ConnectionArgs(**{key: _input(value) for key, value in connection.items()})


class Stack:
    """One throw-away stack whose program is a list of commands."""

    def __init__(self, folder: Path, binary: Path) -> None:
        home = folder / "pulumi-home"
        plugins = home / "plugins" / f"resource-command-v{versions.COMMAND_PLUGIN}"
        plugins.mkdir(parents=True)
        (plugins / plugin.EXECUTABLE).symlink_to(binary)
        backend = folder / "backend"
        backend.mkdir()
        passphrase = folder / "passphrase"
        passphrase.write_text("a passphrase of tests", encoding="utf-8")
        self.environment = environment.engine_environment(backend_url=f"file://{backend}", passphrase_file=passphrase)
        self.environment["PULUMI_HOME"] = str(home)
        self.work = folder / "work"
        self.work.mkdir()
        self.backend = backend
        self.events: list[Any] = []
        self.output = ""
        self.program: Callable[[], None] = self._declared
        self.on_command: Callable[[command.remote.Command], Any] = lambda _: None
        self._commands: list[tuple[str, dict[str, Any], ResourceOptions | None]] = []
        options = automation.LocalWorkspaceOptions(
            work_dir=str(self.work),
            env_vars=self.environment,
            project_settings=automation.ProjectSettings(name="conformance", runtime="python"),
        )
        self.stack = automation.create_or_select_stack(
            "test", project_name="conformance", program=self._run_program, opts=options
        )

    def _run_program(self) -> None:
        self.program()

    def _declared(self) -> None:
        for name, arguments, options in self._commands:
            given = {key: _input(value) for key, value in arguments.items()}
            given["connection"] = inputs(arguments["connection"])
            self.on_command(command.remote.Command(name, opts=options, **given))

    def _call(self, work: Callable[..., Any], **options: Any) -> Any:
        self.events, self.output = [], ""

        def note(text: str) -> None:
            self.output += text + "\n"

        return work(on_event=self.events.append, on_output=note, **options)

    def declare(self, name: str = "cmd", options: ResourceOptions | None = None, **arguments: Any) -> None:
        """Declare a command; the same name again replaces its declaration."""
        self._commands = [entry for entry in self._commands if entry[0] != name]
        self._commands.append((name, arguments, options))

    def up(self, **options: Any) -> list[str]:
        """Deploy; return the operations on commands, `same` left out, like `cmd create`."""
        self._call(self.stack.up, **options)
        return self._operations()

    def preview(self, **options: Any) -> list[str]:
        """Preview; return operations like `up`."""
        self._call(self.stack.preview, **options)
        return self._operations()

    def destroy(self) -> None:
        """Take everything away again."""
        self._call(self.stack.destroy)

    def fails(self) -> str:
        """Deploy, expecting a failure; return all that the CLI and the engine said."""
        with pytest.raises(CommandError) as caught:
            self._call(self.stack.up)
        return f"{caught.value}\n{self.output}\n{self.told()}"

    def told(self) -> str:
        """Return all events as text."""
        return "\n".join(repr(vars(event)) + json.dumps(_plain(event)) for event in self.events)

    def log_lines(self) -> list[str]:
        """Return what came as log lines or diagnostics."""
        return [event.diagnostic_event.message for event in self.events if event.diagnostic_event]

    def _operations(self) -> list[str]:
        found = []
        for event in self.events:
            if event.resource_pre_event and event.resource_pre_event.metadata.type == "command:remote:Command":
                data = event.resource_pre_event.metadata
                if data.op.value != "same":
                    found.append(f"{data.urn.rsplit('::', 1)[1]} {data.op.value}")
        return found

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the commands of the state, secrets as stored, by name."""
        deployment = self.stack.export_stack().deployment or {}
        return {
            resource["urn"].rsplit("::", 1)[1]: resource
            for resource in deployment.get("resources", [])
            if resource["type"] == "command:remote:Command"
        }

    def plugin_processes(self) -> list[int]:
        """Return the plugins that run for this stack, by their PULUMI_HOME."""
        mark = f"PULUMI_HOME={self.environment['PULUMI_HOME']}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if mark in (process / "environ").read_bytes() and words[0].rsplit(b"/", 1)[-1] != b"pulumi":
                    found.append(int(process.name))
            except OSError:
                continue  # ended meanwhile, or not ours
        return found

    def everything_stored(self) -> str:
        """Return every file of the backend as text."""
        files = [path for path in self.backend.rglob("*") if path.is_file()]
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def _plain(value: Any) -> Any:
    """Turn an event into JSON types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dict__"):
        return _plain(vars(value))
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


@pytest.fixture
def stack(tmp_path: Path, plugin_binary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack that is emptied afterwards."""
    monkeypatch.setenv("PATH", f"{cli.find().path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = Stack(tmp_path, plugin_binary)
    yield made
    shutil.rmtree(tmp_path, ignore_errors=True)
