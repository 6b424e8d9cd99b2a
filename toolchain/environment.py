"""The environment in which the engine runs: which CLI, which plugins, which state, and nothing fetched by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from toolchain import cli, paths, plugin

if TYPE_CHECKING:
    from pathlib import Path


def engine_environment(*, backend_url: str, passphrase_file: Path | None) -> dict[str, str]:
    """Build a copy of the caller's environment in which `pulumi` is ours and finds our plugins.

    `backend_url` as Pulumi writes it (`file://…`, `s3://…`); `passphrase_file` holds the passphrase of the
    stack's secrets (None: leave the caller's PULUMI_CONFIG_PASSPHRASE… as they are, for example for a KMS).
    Raises ToolchainError if `python -m toolchain setup` has not run. Changes nothing on disk.
    """
    found = cli.find()
    environment = dict(os.environ)
    # The command plugin would offer every key of a running agent to every host, and a dead agent socket is a
    # hard error in the official plugin.
    environment.pop("SSH_AUTH_SOCK", None)
    environment.update(
        PATH=os.pathsep.join([str(found.path.parent), environment.get("PATH", os.defpath)]),
        PULUMI_HOME=str(paths.pulumi_home()),
        PULUMI_BACKEND_URL=backend_url,
        PULUMI_SKIP_UPDATE_CHECK="true",
        # Plugins come from `setup` only: the engine neither downloads one nor takes one from PATH.
        PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION="true",
        PULUMI_IGNORE_AMBIENT_PLUGINS="true",
    )
    if passphrase_file is not None:
        # PULUMI_CONFIG_PASSPHRASE would win over the file, silently.
        environment.pop("PULUMI_CONFIG_PASSPHRASE", None)
        environment["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(passphrase_file)
    return environment


def which_plugin() -> str:
    """Return which command plugin the engine uses: "official 1.2.1", "keadb's own" or "none"."""
    return plugin.which()
