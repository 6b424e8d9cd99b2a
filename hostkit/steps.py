"""A bundle's guarded steps and its final probes."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from hostkit.errors import CommandFailed, CommandTimeout, HostError, during

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostkit.bundle import Probe, Step
    from hostkit.context import Context

RAN = "ran"
SKIPPED = "skipped"
UNCHANGED = "unchanged"
_PAUSE = 1.0


def run_steps(ctx: Context, steps: Iterable[Step]) -> dict[str, str]:
    """Run those whose check does not hold; return what became of each.

    A step that prints one JSON object with ``"changed": false`` counts as ``unchanged``. The first that fails or
    takes too long (its children are killed too) ends the run with an error that names it.
    """
    became = {}
    for step in steps:
        with during(f"step {step.name!r}"):
            if step.check is not None and _holds(ctx, step.check, step.timeout):
                became[step.name] = SKIPPED
                continue
            ctx.say(step.name)
            done = ctx.system.run(step.run, timeout=step.timeout, progress=partial(_say, ctx, step.name))
            became[step.name] = UNCHANGED if _says_unchanged(done.stdout) else RAN
    return became


def _say(ctx: Context, name: str, line: str) -> None:
    ctx.say(f"{name}: {line}")


def _holds(ctx: Context, check: tuple[str, ...], timeout: int) -> bool:
    return ctx.system.run(check, timeout=timeout, check=False).returncode == 0


def _says_unchanged(output: str) -> bool:
    try:
        said = json.loads(output)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("changed") is False


def run_probes(ctx: Context, probes: Iterable[Probe]) -> None:
    """Try each probe until it holds; HostError with its last output when its time is up."""
    for probe in probes:
        deadline = ctx.system.monotonic() + probe.timeout
        while True:
            try:
                ctx.system.run(probe.run, timeout=max(1.0, deadline - ctx.system.monotonic()))
                break
            except (CommandFailed, CommandTimeout) as e:
                if ctx.system.monotonic() + _PAUSE > deadline:
                    msg = f"probe {probe.name!r} did not hold within {probe.timeout} s; last: {e}"
                    raise HostError(msg) from None
            ctx.system.sleep(_PAUSE)
