"""Edits ``logins`` in the text of a stack file and leaves every other byte as people wrote it.

Works on text: opens no file. What the edited text says is compared with what it should say, so a file of a shape that
is not understood here is refused, never damaged.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import yaml

from keadb.stackfile import SITE_KEY, parse

_Edit = tuple[int, int, str] | None
"""From, to (indexes into the text), and what stands there afterwards; None: nothing is to be changed."""


class EditError(Exception):
    """The text has a shape in which ``logins`` cannot be changed safely."""


def with_logins(text: str, *, source: str, use: tuple[str, str] | None, keep: Sequence[str]) -> str:
    """Return the text with a pair's login in use set (``("read", "b")``) and exactly these logins kept open.

    ``text`` is a stack file that could be read as a whole. EditError says what to write by hand where it cannot be
    edited.
    """
    try:
        wanted = _expected(parse(text, source=source), use, keep)
        edited = text
        if use:
            edited = _apply(edited, _use(edited, *use))
        edited = _apply(edited, _keep(edited, list(keep)))
        good = parse(edited, source=source) == wanted
    except (_UnknownShapeError, ValueError, TypeError, IndexError):
        good = False
    if good:
        return edited
    parts = ([f"{use[0]}: {use[1]}"] if use else []) + [f"keep: [{', '.join(keep)}]"]
    msg = f"{source}: the part logins cannot be edited without touching the rest; set it by hand: {', '.join(parts)}"
    raise EditError(msg)


class _UnknownShapeError(Exception):
    """A shape that nobody writes by hand."""


def _expected(data: Any, use: tuple[str, str] | None, keep: Sequence[str]) -> Any:
    wanted = copy.deepcopy(data)
    logins = wanted["config"][SITE_KEY].setdefault("logins", {})
    if use:
        logins[use[0]] = use[1]
    if list(keep) != list(logins.get("keep", [])):
        logins["keep"] = list(keep)
        if not keep and len(logins) > 1:
            del logins["keep"]
    if not logins:
        del wanted["config"][SITE_KEY]["logins"]
    return wanted


def _places(text: str) -> tuple[yaml.MappingNode, yaml.MappingNode | None]:
    """Return where the site stands in the text, and its logins if they are there."""
    site = _get(_get(yaml.compose(text, Loader=yaml.SafeLoader), "config"), SITE_KEY)
    logins = _get(site, "logins")
    if site.flow_style or not (logins is None or isinstance(logins, yaml.MappingNode)):
        raise _UnknownShapeError
    return site, logins


def _use(text: str, key: str, letter: str) -> _Edit:
    site, logins = _places(text)
    if logins is None:
        return _new_line(text, site, f"logins: {{{key}: {letter}}}")
    found = _get(logins, key)
    if found is None:
        return _insert(text, logins, f"{key}: {letter}")
    return (found.start_mark.index, found.end_mark.index, letter) if found.value != letter else None


def _keep(text: str, keep: list[str]) -> _Edit:
    site, logins = _places(text)
    entry = f"keep: [{', '.join(keep)}]"
    if logins is None:
        return _new_line(text, site, f"logins: {{{entry}}}") if keep else None
    found = _get(logins, "keep")
    if found is None:
        return _insert(text, logins, entry) if keep else None
    if not isinstance(found, yaml.SequenceNode):
        raise _UnknownShapeError
    had = [item.value for item in found.value]
    if had == keep:
        return None
    if not keep:
        return _without_keep(text, logins)
    spans = [(item.start_mark.index, _end(item)) for item in found.value]
    gone = [position for position, name in enumerate(had) if name not in keep]
    new = [name for name in keep if name not in had]
    if len(gone) + len(new) != 1:
        raise _UnknownShapeError  # one login at a time
    if new:
        return _insert(text, found, new[0], item=True)
    return _without(text, spans, gone[0], flow=bool(found.flow_style))


def _without_keep(text: str, logins: yaml.MappingNode) -> _Edit:
    """Return the edit that takes the list away; where nothing else stands beside it, an empty one stays."""
    position = [key.value for key, _ in logins.value].index("keep")
    if len(logins.value) == 1:
        key, found = logins.value[0]
        return (key.end_mark.index, _end(found), ": []")
    spans = [(key.start_mark.index, _end(value)) for key, value in logins.value]
    return _without(text, spans, position, flow=bool(logins.flow_style))


def _insert(text: str, node: Any, entry: str, *, item: bool = False) -> _Edit:
    """Return the edit that adds an entry at the end of a mapping or sequence."""
    if not node.flow_style:
        return _new_line(text, node, f"- {entry}" if item else entry)
    if not node.value:
        at = node.start_mark.index + 1
        return (at, at, entry)
    at = _end(node.value[-1] if item else node.value[-1][1])
    return (at, at, f", {entry}")


def _new_line(text: str, node: Any, entry: str) -> _Edit:
    """Return the edit that adds a line at the end of a block, comments of its last line before it."""
    at = _line_end(text, _end(node))
    line_break = "\r\n" if "\r\n" in text else "\n"
    return (at, at, f"{line_break}{' ' * node.start_mark.column}{entry}")


def _without(text: str, spans: list[tuple[int, int]], position: int, *, flow: bool) -> _Edit:
    """Return the edit that takes one entry away: with its comma, or with its lines."""
    start, end = spans[position]
    if not flow:
        first = text.rfind("\n", 0, start) + 1
        return (first, min(text.find("\n", end) % (len(text) + 1) + 1, len(text)), "")
    if position:
        return (spans[position - 1][1], end, "")
    return (start, spans[1][0] if len(spans) > 1 else end, "")


def _get(node: Any, key: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise _UnknownShapeError
    return next((value for name, value in node.value if name.value == key), None)


def _end(node: Any) -> int:
    """Return where the last thing of a node ends: the end of a block is where the next thing begins."""
    if isinstance(node, yaml.ScalarNode):
        if node.style in {"|", ">"}:
            raise _UnknownShapeError
        return int(node.end_mark.index)
    if node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    end = len(text) if end < 0 else end
    return end - 1 if text[index:end].endswith("\r") else end


def _apply(text: str, edit: _Edit) -> str:
    return text if edit is None else text[: edit[0]] + edit[2] + text[edit[1] :]
