"""What is wrong with a site file, said the same way everywhere: key path, given value, allowed values."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 40
_SHORT.maxlevel = 2

MISSING = "nothing"
"""What `Problem.given` says for a key that is not there."""


def show(value: object) -> str:
    """Return ``value`` as short text for a message; never raises, whatever YAML or JSON made of the input."""
    if isinstance(value, date):
        return str(value)
    try:
        text = f'"{value}"' if isinstance(value, str) and len(value) <= 80 else _SHORT.repr(value)  # noqa: PLR2004 - one line of a terminal
    except (ValueError, RecursionError):  # a whole number of more than 4300 digits has no repr
        return f"a {type(value).__name__}"
    return text.encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: ``path`` is the dotted key, ``given`` and ``allowed`` are texts for a person."""

    path: str
    given: str
    allowed: str
    message: str

    def __str__(self) -> str:
        return f"{self.path or '(the whole)'}: {self.message}; given {self.given}, allowed: {self.allowed}"


class SiteError(Exception):
    """A site file is not usable. Carries every problem found, in the order of the file's keys."""

    def __init__(self, problems: Iterable[Problem], *, source: str) -> None:
        self.problems = list(problems)
        self.source = source
        count = len(self.problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count} problem{'' if count == 1 else 's'}{lines}")
