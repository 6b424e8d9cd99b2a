"""``up``, ``preview`` and ``destroy``: the repository's program under the real engine, shown as hosts and steps.

The Automation API runs the program of ``__main__.py`` in this process, so no language plugin is needed. What runs
where is decided by the program alone; here it is only driven and its events are put into words. Plain
``pulumi up`` does the same with a complete installation.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pulumi import automation as auto
from semver import VersionInfo  # the SDK's own dependency, part of its interface

from ops.events import Failure, Run
from ops.exits import Exit
from ops.interrupt import Interrupts
from ops.leftovers import settle_pending, stale_lock
from ops.messages import plain, readable
from ops.progress import Display
from ops.pulumi_cli import Engine
from ops.stacks import REPOSITORY, Stack

OPERATIONS = ("up", "preview", "destroy")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one operation is to be run.

    ``diff`` gets the engine's own diff text line by line, None for none. ``replace`` are URNs that are made anew
    although nothing about them changed; ``notes`` say why, and are part of the result's warnings.
    """

    diff: Callable[[str], None] | None = None
    color: bool = False
    replace: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Result:
    """How an operation ended. ``seconds`` is wall-clock time, start of the engine included."""

    stack: str
    operation: str
    run: Run
    seconds: float
    failed: bool
    notes: tuple[str, ...] = ()
    """What was said before the engine started."""
    interrupted: bool = False
    """Somebody pressed Ctrl-C before its end."""

    def exit_code(self, *, expect_no_changes: bool) -> Exit:
        """Return the command's exit code: failure first, then unexpected changes."""
        if self.failed:
            return Exit.INTERRUPTED if self.interrupted else Exit.FAILED
        if expect_no_changes and self.run.changes:
            return Exit.CHANGES
        return Exit.OK

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``: no inputs and no outputs of resources, so no secret."""
        return {
            "stack": self.stack,
            "operation": self.operation,
            "result": ("stopped" if self.interrupted else "failed") if self.failed else "succeeded",
            "seconds": round(self.seconds, 1),
            "counts": dict(sorted(self.run.counts.items())),
            "changes": [
                {
                    "host": s.place.host,
                    "step": s.place.step,
                    "urn": s.urn,
                    "operation": s.operation,
                    "state": s.state.value,
                    "keys": list(s.keys),
                    "inside": list(s.inside),
                    "summary": None if s.summary is None else dict(s.summary),
                }
                for s in self.run.changed()
            ],
            "failures": [
                {
                    "host": f.place.host if f.place else None,
                    "step": f.place.step if f.place else None,
                    "message": f.message,
                }
                for f in self.run.failures
            ],
            "warnings": [*self.notes, *self.run.warnings],
        }


class _Cli(auto.PulumiCommand):
    """The CLI that the toolchain chose and checked; the Automation API would search and ask again."""

    def __init__(self, engine: Engine) -> None:
        self.command = str(engine.path)
        self.version = VersionInfo(*engine.version)


class _Workspace(auto.LocalWorkspace):
    """Leaves out the calls whose answers nobody reads; each costs a third of a second of a second run."""

    def select_stack(self, stack_name: str) -> None:
        """Do nothing: every call names its stack, and the user's own selection is not ours to change."""

    def stack_outputs(self, stack_name: str) -> auto.OutputMap:  # noqa: ARG002 -- the base class's signature
        """Return nothing: outputs are for ``pulumi stack output``."""
        return {}


def program() -> None:
    """Run the repository's program in this process."""
    runpy.run_path(str(REPOSITORY / "__main__.py"), run_name="__main__")


def operate(
    stack: Stack,
    operation: str,
    *,
    hosts: tuple[str, ...],
    display: Display,
    options: Options = Options(),
) -> Result:
    """Run one operation and return how it ended; engine errors are in the result, never raised.

    Raises CommandError for what keeps the engine from starting at all.
    """
    began = time.monotonic()
    engine = Engine(stack)
    engine.adopt_environment()
    # The program's own package must be importable whatever the current folder is.
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(0, str(REPOSITORY))
    engine.ensure_stack()
    handle = auto.Stack.select(
        stack.name,
        _Workspace(
            work_dir=str(stack.work_dir), program=program, pulumi_command=_Cli(engine), env_vars=engine.environment
        ),
    )
    run = Run(hosts=hosts)
    with Interrupts(run, display.note) as interrupts:
        error = _attempt(handle, operation, run, display, options)
    if error and not interrupts.count and (lock := stale_lock(error, stack.backend_url())):
        run = Run(hosts=hosts, warnings=[f"took over the lock that process {lock} left behind when it was killed"])
        engine.call("cancel", "--yes")
        with Interrupts(run, display.note) as interrupts:
            error = _attempt(handle, operation, run, display, options)
    settle_pending(engine, run, done=operation == "up" and not error)
    if error and not run.failures:
        run.failures.append(Failure(place=None, message=_engine_error(error)))
    return Result(
        stack=stack.name,
        operation=operation,
        run=run,
        seconds=time.monotonic() - began,
        failed=bool(error),
        notes=options.notes,
        interrupted=bool(interrupts.count),
    )


def _attempt(handle: auto.Stack, operation: str, run: Run, display: Display, options: Options) -> str:
    """Run the operation once; return the engine's error text, empty when it succeeded."""
    arguments: dict[str, Any] = {
        "on_event": _watched(run, display),
        "color": "always" if options.color else "never",
        "suppress_outputs": True,
    }
    if options.replace:
        arguments["replace"] = list(options.replace)
    if options.diff is not None:
        arguments |= {"diff": True, "on_output": _without_diagnostics(options.diff)}
    try:
        if operation == "preview":
            handle.preview(**arguments)
        elif operation == "up":
            handle.up(show_secrets=False, **arguments)
        elif operation == "destroy":
            arguments.pop("diff", None)
            arguments.pop("replace", None)
            handle.destroy(show_secrets=False, **arguments)
        else:
            msg = f"unknown operation {operation!r}, allowed: {', '.join(OPERATIONS)}"
            raise ValueError(msg)
    except auto.CommandError as error:
        return str(error) or "failed"
    except RuntimeError as error:
        # "summary event never found": the engine ended without one; its own words are in the events.
        return str(error) or "failed"
    return ""


def _watched(run: Run, display: Display) -> Callable[[auto.EngineEvent], None]:
    """Return what takes the engine's events and shows them, as long as somebody watches."""
    watched = True

    def on_event(event: auto.EngineEvent) -> None:
        nonlocal watched
        news = run.take(event)
        if not watched:
            return
        try:
            display.show(run, news)
        except (BrokenPipeError, SystemExit):
            # Whoever watched has gone (rich makes an exit of it). An event that nobody takes stops the engine for
            # ever, with its lock: the run goes on unseen.
            watched = False

    return on_event


def _without_diagnostics(write: Callable[[str], None]) -> Callable[[str], None]:
    """Pass on the engine's text up to its diagnostics, which are shown as our own failures."""
    passing = True

    def line(text: str) -> None:
        nonlocal passing
        if plain(text).strip() == "Diagnostics:":
            passing = False
        if not passing:
            return
        try:
            write(text)
        except BrokenPipeError:
            # Whoever read us has gone (a pager, head). The engine's output must still be drained, or it waits.
            passing = False

    return line


def _engine_error(error: str) -> str:
    """Return the useful line of an error that came without a diagnostic event."""
    text = plain(error).rpartition("stderr:")[2]
    lines = [line.strip() for line in text.splitlines()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return readable("\n".join(errors) or text)
