"""The host's store of secrets: one root-only file, filled by the program, read while files are written.

Values never leave through an error, a log or an output of this package: ``redact`` is applied to all of them.
"""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING, Any

from hostkit.errors import BadInput, HostError
from hostkit.files import Owner, remove, replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context

SECRETS = "/var/lib/keadb/secrets.json"
PREVIOUS = "/var/lib/keadb/secrets-previous.json"
"""Values that were replaced while the service still has one of them: lists by name, the latest last."""
CHANGED_BY_LOGIN = ("etcd_root_password",)
"""Secrets that are changed in their service by logging in with the old one, so that it is kept until then."""
PLACEHOLDER = re.compile(r"@secret:([a-z][a-z0-9_]*)@")
"""Where a bundle's file names a secret; the same as in ``keadb.bundle``."""
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_SHORTEST_REDACTED = 4


def secrets(ctx: Context) -> dict[str, str]:
    """Return all secrets of this host by name; empty when none was ever stored."""
    return {name: str(value) for name, value in _read(ctx, SECRETS, "send the host's secrets again").items()}


def previous(ctx: Context, name: str) -> tuple[str, ...]:
    """Return the values that a secret had before and that its service may still have, the latest first."""
    found = _read(ctx, PREVIOUS, f"remove it if the service has the password of {SECRETS}").get(name, ())
    return tuple(str(value) for value in reversed(found))


def forget_previous(ctx: Context, name: str) -> None:
    """Drop what a secret was before: call it when its service is seen to have the one of the store."""
    kept = _read(ctx, PREVIOUS, "remove it")
    if kept.pop(name, None) is not None:
        _write_previous(ctx, kept)


def _read(ctx: Context, name: str, hint: str) -> dict[str, Any]:
    path = ctx.path(name)
    try:
        with path.open(encoding="utf-8") as f:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                msg = f"{name} has mode {mode:04o}: others could have read it; allowed is 0600"
                raise HostError(msg)
            found = json.load(f)
    except FileNotFoundError:
        return {}
    except ValueError as e:
        msg = f"{name} is not readable as JSON ({type(e).__name__}); {hint}"
        raise HostError(msg) from None
    return {str(key): value for key, value in found.items()}


def _write(ctx: Context, name: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    replace(ctx, name, text.encode(), mode=0o600, owner=Owner.root(ctx))


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

    Of those that are changed by logging in with the old one, that one is kept as well. BadInput for a name or value
    of the wrong kind, without showing the value.
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
    # First: cut in between, the old value is still found here.
    replaced = {name: had[name] for name in CHANGED_BY_LOGIN if name in had and had[name] != wanted.get(name)}
    _keep(ctx, replaced, wanted)
    _write(ctx, SECRETS, wanted)
    return sorted(name for name in had.keys() | wanted.keys() if had.get(name) != wanted.get(name))


def _keep(ctx: Context, replaced: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Remember values that are about to be replaced; forget those of secrets that this host no longer has."""
    had = _read(ctx, PREVIOUS, "remove it if no password was changed lately")
    kept = {name: values for name, values in had.items() if name in wanted}
    for name, value in replaced.items():
        if name in wanted:
            kept[name] = [*(v for v in kept.get(name, ()) if v != value), value]
    if kept != had:
        _write_previous(ctx, kept)


def _write_previous(ctx: Context, kept: Mapping[str, Any]) -> None:
    if kept:
        _write(ctx, PREVIOUS, kept)
    else:
        remove(ctx, PREVIOUS)


def redact(ctx: Context, text: str) -> str:
    """Replace every known secret value in this text by ``***``, whole and line by line; never raises."""
    try:
        values = [*secrets(ctx).values(), *(v for name in CHANGED_BY_LOGIN for v in previous(ctx, name))]
    except (HostError, OSError):
        return text
    parts = {part for value in values for part in (value, *value.splitlines()) if len(part) >= _SHORTEST_REDACTED}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "***")
    return text
