"""Renders the files that land on hosts from templates/ (Jinja2, undefined names are errors).

Templates hold no logic beyond loops and conditions; values come ready. Nothing here escapes for a target format by
itself: templates say ``| json``, ``| pg`` or ``| sh`` where a value needs quoting.
"""

from __future__ import annotations

import functools
import json
import shlex
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


class TemplateError(Exception):
    """A template cannot be rendered; the message names it, the line if known, and what is missing."""


def _json(value: Any, indent: int | None = None) -> str:
    """Quote for JSON and YAML: keys sorted, characters as they are (Jinja's own filter escapes for HTML)."""
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)


def _pg(value: Any) -> str:
    """Quote for postgresql.conf: text in single quotes, true and false as on and off, numbers as they are."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


@functools.cache
def environment(root: Path = TEMPLATES) -> jinja2.Environment:
    """Return the environment for templates under ``root`` (ours, unless a test says otherwise)."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML: escaping would corrupt them
    )
    made.filters.update({"json": _json, "pg": _pg, "sh": lambda value: shlex.quote(str(value))})
    return made


def render(template: str, **context: Any) -> str:
    """Return ``template`` (a path under templates/) with ``context``; always ends in one newline or is empty.

    Raises TemplateError for an unknown template, a syntax error or an undefined name.
    """
    return render_from(TEMPLATES, template, context)


def render_from(root: Path, template: str, context: dict[str, Any]) -> str:
    """Like `render`, for templates under another ``root``."""
    try:
        text = environment(root).get_template(template).render(context)
    except jinja2.TemplateNotFound as error:
        message = f"templates/{template}: there is no template {error.name}"
        raise TemplateError(message) from error
    except jinja2.TemplateSyntaxError as error:
        message = f"templates/{error.name or template}, line {error.lineno}: {error.message}"
        raise TemplateError(message) from error
    except jinja2.UndefinedError as error:
        message = f"templates/{template}: {error.message} (given: {', '.join(sorted(context)) or 'nothing'})"
        raise TemplateError(message) from error
    return text.rstrip("\n") + "\n" if text.strip() else ""
