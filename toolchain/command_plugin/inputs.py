"""Inputs of `command:remote:Command`: defaults, what is refused, and how two sets of them differ."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pulumi.provider.experimental.property_value import Computed, PropertyValue
from pulumi.provider.experimental.provider import CheckFailure, PropertyDiff, PropertyDiffKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OUTPUTS: Final = ("stdout", "stderr")
LOGGING: Final = ("stdout", "stderr", "stdoutAndStderr", "none")
_CONNECTION_DEFAULTS: Final[dict[str, str | float]] = {
    "user": "root",
    "port": 22.0,
    "dialErrorLimit": 10.0,
    "perDialTimeout": 15.0,
}
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*")


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _number(value: Any) -> bool:
    return isinstance(value, float) and not isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) or item is None for item in value.values())


# Key -> (what it must be, in words; how that is checked).
_CONNECTION: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "host": ("a string", _is(str)),
    "hostKey": ("a string", _is(str)),
    "user": ("a string", _is(str)),
    "password": ("a string", _is(str)),
    "privateKey": ("a string", _is(str)),
    "privateKeyPassword": ("a string", _is(str)),
    "port": ("a number", _number),
    "dialErrorLimit": ("a number", _number),
    "perDialTimeout": ("a number", _number),
}
_OFFICIAL_ONLY: Final = {"proxy", "agentSocketPath"}
_COMMAND: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "connection": ("an object", _is(dict)),
    "create": ("a string", _is(str)),
    "update": ("a string", _is(str)),
    "delete": ("a string", _is(str)),
    "stdin": ("a string", _is(str)),
    "environment": ("a map of strings", _texts),
    "triggers": ("a list", _is(list)),
    "logging": (f"one of {', '.join(LOGGING)}", lambda value: value in LOGGING),
    "addPreviousOutputInEnv": ("a boolean", _is(bool)),
}


class Unknown:
    """Stands for a value that is not known before another resource is made."""


def plain(value: PropertyValue | None) -> Any:
    """Turn a property value into Python's own types, secrets opened; an unknown becomes an `Unknown`."""
    inner = value.value if value is not None else None
    if isinstance(inner, Computed):
        return Unknown()
    if inner is None or isinstance(inner, (str, bool, float)):
        return inner
    if isinstance(inner, Mapping):
        return {key: plain(item) for key, item in inner.items()}
    if isinstance(inner, tuple):
        return [plain(item) for item in inner]
    return inner


def with_defaults(inputs: Mapping[str, PropertyValue]) -> dict[str, PropertyValue]:
    """Return the inputs as they are stored: connection defaults filled in, the connection a secret."""
    result = dict(inputs)
    connection = result.get("connection")
    if connection is not None and isinstance(connection.value, Mapping):
        filled = {key: PropertyValue(value) for key, value in _CONNECTION_DEFAULTS.items()}
        filled.update({key: item for key, item in connection.value.items() if item.value is not None})
        result["connection"] = connection.with_value(filled)
    if connection is not None:
        result["connection"] = result["connection"].with_secret(is_secret=True)
    return result


def problems(inputs: Mapping[str, PropertyValue]) -> list[CheckFailure]:
    """Return everything that is wrong with the inputs; values are never repeated, some are secret."""
    found = list(_wrong({key: plain(value) for key, value in inputs.items()}, _COMMAND, ""))
    connection = plain(inputs.get("connection"))
    if connection is None:
        found.append(CheckFailure("connection", "missing: say how to reach the host"))
    elif isinstance(connection, dict):
        if connection.get("host") is None:
            found.append(CheckFailure("connection.host", "missing: say which host"))
        found.extend(_wrong(connection, _CONNECTION, "connection."))
    return found


def _wrong(
    values: Mapping[str, Any], known: Mapping[str, tuple[str, Callable[[Any], bool]]], prefix: str
) -> Iterator[CheckFailure]:
    for key, value in sorted(values.items()):
        if key.startswith("__"):
            continue  # the engine's own
        if key in _OFFICIAL_ONLY and prefix:
            reason = "not served by keadb's own command plugin; the official one is needed for it"
            yield CheckFailure(prefix + key, reason)
        elif key not in known:
            yield CheckFailure(prefix + key, f"unknown; known are {', '.join(sorted(known))}")
        elif value is not None and not isinstance(value, Unknown) and not known[key][1](value):
            yield CheckFailure(prefix + key, f"must be {known[key][0]}")


def difference(old: Mapping[str, PropertyValue], new: Mapping[str, PropertyValue]) -> dict[str, PropertyDiff]:
    """Return what differs between an old state and new inputs, by property path.

    Whether a value is a secret is no difference. Paths never lead into a secret: the engine would print what
    they lead to. A changed trigger means replacement.
    """
    found: dict[str, PropertyDiff] = {}
    before = {key: value for key, value in old.items() if key not in OUTPUTS}
    _compare_maps(before, new, "", found)
    return found


_REPLACING: Final = {
    PropertyDiffKind.ADD: PropertyDiffKind.ADD_REPLACE,
    PropertyDiffKind.DELETE: PropertyDiffKind.DELETE_REPLACE,
    PropertyDiffKind.UPDATE: PropertyDiffKind.UPDATE_REPLACE,
}


def _note(path: str, kind: PropertyDiffKind, found: dict[str, PropertyDiff]) -> None:
    if re.match(r"triggers(\[|$)", path):
        kind = _REPLACING[kind]
    found[path] = PropertyDiff(kind, input_diff=False)


def _compare_maps(
    old: Mapping[str, PropertyValue], new: Mapping[str, PropertyValue], prefix: str, found: dict[str, PropertyDiff]
) -> None:
    for key in sorted({*old, *new}):
        if key.startswith("__") and not prefix:
            continue
        step = (f".{key}" if prefix else key) if _PLAIN_KEY.fullmatch(key) else f'["{key}"]'
        _compare(old.get(key), new.get(key), prefix + step, found)


def _compare(old: PropertyValue | None, new: PropertyValue | None, path: str, found: dict[str, PropertyDiff]) -> None:
    if old is None or old.value is None:
        if new is not None and new.value is not None:
            _note(path, PropertyDiffKind.ADD, found)
    elif new is None or new.value is None:
        _note(path, PropertyDiffKind.DELETE, found)
    elif not _same(plain(old), plain(new)):
        before, after = old.value, new.value
        if old.is_secret or new.is_secret:
            _note(path, PropertyDiffKind.UPDATE, found)
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            _compare_maps(before, after, path, found)
        elif isinstance(before, tuple) and isinstance(after, tuple):
            for index, (first, second) in enumerate(itertools.zip_longest(before, after)):
                _compare(first, second, f"{path}[{index}]", found)
        else:
            _note(path, PropertyDiffKind.UPDATE, found)


def _same(old: Any, new: Any) -> bool:
    """Compare plain values; null means absent, and an unknown equals nothing."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(_same(old.get(key), new.get(key)) for key in {*old, *new})
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return type(old) is type(new) and bool(old == new) and not isinstance(old, Unknown)
