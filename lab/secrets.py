"""The secrets of a lab's stack: made with the lab, by the same code that makes a real site's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.model import LabSpec
    from ops.stacks import Stack


def stack(spec: LabSpec) -> Stack:
    """Return the lab's stack. Never looked up by its name: a real stack could have the same one."""
    from ops.stacks import Stack  # noqa: PLC0415 -- the lab's hosts come up without the command's modules

    return Stack(name=spec.name, work_dir=spec.folder, netns=spec.netns)


def ensure(spec: LabSpec, say: Callable[[str], None]) -> bool:
    """Make the secrets that the lab's site file doesn't hold yet; False when there is nothing to do.

    Takes seconds the first time (the engine's command line encrypts each), none later. Raises LabError.
    """
    from keadb.stackfile import missing_secrets  # noqa: PLC0415 -- as above
    from ops.exits import CommandError  # noqa: PLC0415
    from ops.secrets import init_secrets  # noqa: PLC0415

    if not missing_secrets(yaml.safe_load(spec.site_file.read_text(encoding="utf-8"))):
        return False
    try:
        made = init_secrets(stack(spec))
    except CommandError as error:
        raise LabError(str(error)) from None
    say(f"secrets made: {len(made.new)}")
    return True


def values(spec: LabSpec) -> dict[str, str]:
    """Return the lab's secrets by name, in memory only. Raises LabError."""
    from ops.exits import CommandError  # noqa: PLC0415 -- as above
    from ops.secrets import secret_values  # noqa: PLC0415

    try:
        return secret_values(stack(spec))
    except CommandError as error:
        raise LabError(str(error)) from None
