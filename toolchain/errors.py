"""The one error that the toolchain raises: a message for people, with the way out."""

from __future__ import annotations


class ToolchainError(Exception):
    """Something needed is missing or could not be made. The message says what, and what to do about it."""
