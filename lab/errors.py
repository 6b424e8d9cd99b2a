"""The one error of the lab: a clear message for the person at the keyboard."""

from __future__ import annotations


class LabError(Exception):
    """Something that the user can act on; the message says what was tried, found and wanted."""
