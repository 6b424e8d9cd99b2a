"""Where the toolchain keeps things: outside the checkout, so that checkouts share them and `git clean` is cheap."""

from __future__ import annotations

import os
from pathlib import Path

from toolchain import versions


def cache_dir() -> Path:
    """Folder for everything that can be made again: $KEADB_CACHE, else ~/.cache/keadb. Not created here."""
    given = os.environ.get("KEADB_CACHE")
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "keadb"


def pulumi_home() -> Path:
    """Return keadb's own PULUMI_HOME: its plugin must never be taken for the official one by another project."""
    return cache_dir() / "pulumi-home"


def cli_root() -> Path:
    """Installation root of the CLI that we build (`bin/pulumi` is below), one folder for each version."""
    return cache_dir() / f"pulumi-cli-{versions.dotted(versions.PULUMI_CLI)}"


def cli_path() -> Path:
    """Return the place of the CLI that we build; it exists after `python -m toolchain setup` built one."""
    return cli_root() / "bin" / "pulumi"


def plugin_dir() -> Path:
    """Folder in which the engine looks for the command plugin."""
    return pulumi_home() / "plugins" / f"resource-command-v{versions.COMMAND_PLUGIN}"


def plugin_builds() -> Path:
    """Folder of keadb's own plugin as built, one folder for each content digest."""
    return cache_dir() / "command-plugin"


def checkout() -> Path:
    """Return the root of the checkout that this module was loaded from."""
    return Path(__file__).resolve().parent.parent
