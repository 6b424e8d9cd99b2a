"""What an item of the audit is made of: where it comes from, on which hosts it holds, and how facts are judged. Pure.

An item looks at the facts of one host (``hostkit.audit``) and gives checks: each says what was looked at, what is
expected, what was found, and whether that is good. An item without a bad check passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keadb.site import Host, Site

OWN = "own"
"""Source of an item that stands in no benchmark."""


class Unknown(Exception):  # noqa: N818 - named for what it says of the facts
    """A part of the facts is not there: the reason why nothing can be said."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison: ``what`` was looked at, what is ``expected``, what is there."""

    what: str
    expected: str
    actual: str
    good: bool

    def __str__(self) -> str:
        """Return it as people read it."""
        return f"{self.what} is {self.actual or 'empty'}, expected: {self.expected or 'empty'}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one host said."""

    document: Mapping[str, Any]

    def part(self, name: str) -> Any:
        """Return a part; Unknown with the host's reason when it could not be found out, or is not told."""
        found = self.document.get(name)
        if found is None:
            msg = f"the host tells nothing of {name}: it may have an older applier, run 'keadb up' first"
            raise Unknown(msg)
        if isinstance(found, Mapping) and set(found) == {"error"}:
            raise Unknown(str(found["error"]))
        return found


Look = Callable[[Facts, Site, Host], Iterable[Check]]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that must hold. ``source`` is the section of the CIS PostgreSQL 15 benchmark, or ``OWN``.

    ``role`` limits it to hosts that carry it; None is every host.
    """

    id: str
    source: str
    title: str
    look: Look
    role: str | None = None

    def on(self, host: Host) -> bool:
        """Say whether the item is looked at on this host."""
        return self.role is None or self.role in host.roles


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items that belong together, in the order in which they are shown."""

    name: str
    items: tuple[Item, ...] = field(default_factory=tuple)


def equal(what: str, expected: object, actual: object) -> Check:
    """Return whether something is exactly as expected."""
    return Check(what=what, expected=shown(expected), actual=shown(actual), good=actual == expected)


def among(what: str, allowed: Iterable[str], actual: str) -> Check:
    """Return whether something is one of the allowed."""
    allowed = tuple(allowed)
    return Check(
        what=what, expected=" or ".join(a or "empty" for a in allowed), actual=actual, good=actual in allowed
    )


def nothing(what: str, found: Iterable[str]) -> Check:
    """Return whether there is none of something."""
    names = sorted(found)
    return Check(what=what, expected="none", actual=", ".join(names) or "none", good=not names)


def same(what: str, expected: Iterable[str], actual: Iterable[str]) -> Check:
    """Return whether two sets are the same; of long ones only the differences are shown."""
    wanted, found = set(expected), set(actual)
    extra, missing = sorted(found - wanted), sorted(wanted - found)
    parts = [f"unexpected: {'; '.join(extra)}"] * bool(extra) + [f"missing: {'; '.join(missing)}"] * bool(missing)
    told = " | ".join(parts) or "as declared"
    return Check(what=what, expected="as declared", actual=told, good=not parts)


def shown(value: object) -> str:
    """Return a value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def no_more_than(mode: str, most: int) -> bool:
    """Say whether a file's mode (octal text) has no bit beyond these."""
    return int(mode, 8) & ~most == 0
