"""The host's store of secrets: one root-only file, filled by the program, read while files are written.

Values never leave through an error, a log or an output of this package: ``redact`` is applied to all of them.
"""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING

from hostkit.errors import BadInput, HostError
from hostkit.files import Owner, replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context

SECRETS = "/var/lib/keadb/secrets.json"
PLACEHOLDER = re.compile(r"@secret:([a-z][a-z0-9_]*)@")
"""Where a bundle's file names a secret; the same as in ``keadb.bundle``."""
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_SHORTEST_REDACTED = 4


def secrets(ctx: Context) -> dict[str, str]:
    """Return all secrets of this host by name; empty when none was ever stored."""
    path = ctx.path(SECRETS)
    try:
        with path.open(encoding="utf-8") as f:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                msg = f"{SECRETS} has mode {mode:04o}: others could have read it; allowed is 0600"
                raise HostError(msg)
            found = json.load(f)
    except FileNotFoundError:
        return {}
    except ValueError as e:
        msg = f"{SECRETS} is not readable as JSON ({type(e).__name__}); send the host's secrets again"
        raise HostError(msg) from None
    return {str(k): str(v) for k, v in found.items()}


def secret(ctx: Context, name: str, *, wanted_by: str = "this command") -> str:
    """Return one secret; a missing one is a HostError that names it and who wants it (never a value)."""
    try:
        return secrets(ctx)[name]
    except KeyError:
        msg = f"secret {name!r}, wanted by {wanted_by}, is not in this host's store ({SECRETS}); send it first"
        raise HostError(msg) from None


def fill(ctx: Context, content: str, *, wanted_by: str) -> str:
    """Return the content of a file with every ``@secret:NAME@`` replaced; a missing one is a HostError."""
    return PLACEHOLDER.sub(lambda m: secret(ctx, m[1], wanted_by=wanted_by), content)


def put(ctx: Context, given: Mapping[str, object]) -> list[str]:
    """Make these the secrets of this host, and drop any other; return the names that changed, sorted.

    BadInput for a name or value of the wrong kind, without showing the value.
    """
    wanted = {}
    for name, value in given.items():
        if not NAME.match(name):
            msg = f"secret name {name!r}: allowed are lower-case letters, digits and _ (first a letter)"
            raise BadInput(msg)
        if not isinstance(value, str) or not value:
            msg = f"secret {name!r}: given is {type(value).__name__}, allowed is a non-empty string"
            raise BadInput(msg)
        wanted[name] = value
    had = secrets(ctx)
    text = json.dumps(wanted, indent=1, sort_keys=True) + "\n"
    replace(ctx, SECRETS, text.encode(), mode=0o600, owner=Owner.root(ctx))
    return sorted(name for name in had.keys() | wanted.keys() if had.get(name) != wanted.get(name))


def redact(ctx: Context, text: str) -> str:
    """Replace every known secret value in this text by ``***``, whole and line by line; never raises."""
    try:
        values = secrets(ctx).values()
    except (HostError, OSError):
        return text
    parts = {part for value in values for part in (value, *value.splitlines()) if len(part) >= _SHORTEST_REDACTED}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "***")
    return text
