"""The plugin's one error."""

from __future__ import annotations


class CommandError(Exception):
    """A command or its connection failed; the message goes to the engine as it is, so no input is in it."""
