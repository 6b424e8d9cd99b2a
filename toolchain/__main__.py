"""`python -m toolchain setup|doctor`: make the engine ready, or say what is used."""

from __future__ import annotations

import platform
import sys

from toolchain import cli, paths, plugin, setup, versions
from toolchain.errors import ToolchainError

_USAGE = "usage: python -m toolchain setup|doctor\n"


def doctor() -> int:
    """Print what is used and where it is; 1 if something is missing."""
    found = cli.look()
    which = plugin.which()
    rows = [
        ("Python", platform.python_version(), sys.executable),
        ("Pulumi CLI", _cli_words(found), str(found.path) if found else "run `make setup`"),
        ("command plugin", which, str(paths.plugin_dir()) if which != "none" else "run `make setup`"),
        ("PULUMI_HOME", "", str(paths.pulumi_home())),
        ("cache", "", str(paths.cache_dir())),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, what, where in rows:
        sys.stdout.write(f"{name:<{widths[0]}}  {what:<{widths[1]}}  {where}\n")
    return 0 if found and which != "none" else 1


def _cli_words(found: cli.Cli | None) -> str:
    return f"v{versions.dotted(found.version)} ({found.origin})" if found else "none"


def main(arguments: list[str]) -> int:
    """Run one command; 2 for a wrong one."""
    if arguments == ["setup"]:
        setup.setup()
        return 0
    if arguments == ["doctor"]:
        return doctor()
    sys.stderr.write(_USAGE)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ToolchainError as error:
        sys.stderr.write(f"toolchain: {error}\n")
        sys.exit(1)
