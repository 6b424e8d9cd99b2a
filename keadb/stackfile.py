"""Reads a stack file (Pulumi.<stack>.yaml): the site under ``keadb:site``, secrets encrypted beside it.

Works on text that is given; opens no file, decrypts nothing, and never repeats a secret in a message.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import yaml

from keadb.problems import MISSING, Problem, show
from keadb.secrets import SECRETS
from keadb.site import Site, SiteError, load_site

SITE_KEY = "keadb:site"
SECRET_PREFIX = "keadb:secret_"  # noqa: S105 - the start of configuration keys, not a secret
_HIDDEN = "a value that is not shown"
_TOP_KEYS = ("config", "encryptionsalt", "secretsprovider", "encryptedkey")


def read_stack(text: str, *, stack: str, source: str) -> Site:
    """Return the site of a stack file's text. Raises SiteError with all problems, also of the YAML itself."""
    return site_of(parse(text, source=source), stack=stack, source=source)


def parse(text: str, *, source: str) -> Any:
    """Return what the YAML holds. Raises SiteError with line and column when it cannot be read, or repeats a key."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that also refuses repeated keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown place"
        found = Problem(path="", given=where, allowed="YAML", message=error.problem or "cannot be read")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        given = type(error).__name__
        found = Problem(path="", given=given, allowed="YAML of plain values", message="cannot be read")
    raise SiteError([found], source=source)


def site_of(data: Any, *, stack: str, source: str) -> Site:
    """Return the site of a parsed stack file. Raises SiteError with all problems."""
    config = data.get("config") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(config, Mapping):
        found = Problem(
            path="config", given=show(config), allowed=f"a mapping with {SITE_KEY}", message="is not there"
        )
        raise SiteError([found], source=source)
    problems = [_unknown(str(key), _TOP_KEYS) for key in data if key not in _TOP_KEYS]
    known = [SITE_KEY, *(spec.config_key for spec in SECRETS)]
    for key, value in config.items():
        name = str(key)
        if name.startswith(SECRET_PREFIX) and name in known:
            problems += _plaintext(name, value)
        elif name != SITE_KEY and name.startswith("keadb:"):
            problems.append(_unknown(f"config.{name}", [f"config.{one}" for one in known]))
    site: Site | None = None
    if SITE_KEY not in config:
        problems.append(
            Problem(path=f"config.{SITE_KEY}", given=MISSING, allowed="this key is needed", message="is missing")
        )
    else:
        try:
            site = load_site(config[SITE_KEY], source=source)
        except SiteError as error:
            problems += error.problems
    if site is not None and site.name != stack:
        problems.append(
            Problem(path="name", given=show(site.name), allowed=show(stack), message="is not the name of the stack")
        )
    if problems or site is None:
        raise SiteError(problems, source=source)
    return site


def missing_secrets(data: Any) -> tuple[str, ...]:
    """Return the names of secrets that a parsed stack file does not hold yet (``keadb secrets init`` makes them)."""
    config = data.get("config") if isinstance(data, Mapping) else None
    given = config if isinstance(config, Mapping) else {}
    return tuple(spec.name for spec in SECRETS if spec.config_key not in given)


def _plaintext(name: str, value: Any) -> list[Problem]:
    if isinstance(value, Mapping) and set(value) == {"secure"} and isinstance(value["secure"], str):
        return []
    allowed = "an encrypted value (secure: ...), as `keadb secrets init` writes it"
    message = "is not encrypted: take it out, make a new one, and treat this one as known to others"
    return [Problem(path=f"config.{name}", given=_HIDDEN, allowed=allowed, message=message)]


def _unknown(path: str, known: list[str] | tuple[str, ...]) -> Problem:
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.8)
    shown = [one.removeprefix("config.") for one in known]
    message = "is not a known key"
    if near:
        message += f'; did you mean "{near[0].removeprefix("config.")}"?'
    # The value may be a secret under a mistyped key.
    return Problem(path=path, given=_HIDDEN, allowed=", ".join(shown), message=message)


class _Loader(yaml.SafeLoader):
    """Plain values only; a key given twice is an error (YAML readers silently keep the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - as PyYAML calls it
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f'has the key "{key}" twice', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
