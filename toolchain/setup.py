"""Makes the whole toolchain ready; safe and quick to repeat."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolchain import cli, plugin

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Toolchain:
    """What the engine is made of after `setup`: the CLI, and which command plugin."""

    cli: cli.Cli
    plugin: str


def to_stderr(line: str) -> None:
    """Write a line of progress where it does not mix with a command's output."""
    sys.stderr.write(f"toolchain: {line}\n")
    sys.stderr.flush()


def setup(report: Callable[[str], None] = to_stderr) -> Toolchain:
    """Find or build the CLI and install a command plugin; under half a second if all is there.

    `report` gets lines of progress, none if nothing had to be done. Raises ToolchainError.
    """
    found = cli.ensure(report)
    return Toolchain(found, plugin.ensure(found, report))
