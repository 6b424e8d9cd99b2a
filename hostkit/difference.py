"""The difference between a file as it was applied and as it is, fit to be shown: lines, never a secret.

The applied side is the bundle's text, with placeholders where secrets go. On the other side every known secret is
blanked; in a file that holds secrets also whatever stands where a placeholder belongs, and the value of every
setting whose name sounds like a secret: at night somebody may have typed one that no store knows.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from hostkit.store import PLACEHOLDER, redact, secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hostkit.context import Context

_BYTES = 1 << 20
"""Of a file; the difference of a larger one is not shown at all."""
_BLANK = "***"
_SENSITIVE = re.compile(
    r"(?P<key>^.*(?:pass|pwd|secret|token|credential|private|key)[\w .\"'-]*[:=]\s*).+$", re.IGNORECASE
)


def unified(ctx: Context, path: str, applied: str, is_now: bytes | None) -> list[str]:
    """Return the lines of a unified difference from ``applied`` (with placeholders) to what is there now.

    Empty when there is nothing that could be shown line by line: the same text, not text, too large, or a file
    that is a secret as a whole.
    """
    before = applied.splitlines()
    try:
        if is_now is not None and len(is_now) > _BYTES:
            return []
        after = [] if is_now is None else is_now.decode().splitlines()
    except UnicodeDecodeError:
        return []
    # A line that begins with a secret has no name by which an edited one could be told.
    if any(not _letters(PLACEHOLDER.split(line)[0]) for line in before if PLACEHOLDER.search(line)):
        return []
    after = list(_without_secrets(ctx, before, after))
    name = "(removed)" if is_now is None else f"{path} as it is"
    made = list(difflib.unified_diff(before, after, f"{path} as applied", name, n=2, lineterm=""))
    return _printable(redact(ctx, "\n".join(made))).split("\n") if made else []


def _without_secrets(ctx: Context, before: Iterable[str], after: Iterable[str]) -> Iterator[str]:
    templates = [line for line in before if PLACEHOLDER.search(line)]
    if not templates:
        yield from after
        return
    values = secrets(ctx)
    filled = {PLACEHOLDER.sub(lambda m: values.get(m[1], _BLANK), line): line for line in templates}
    beginnings = [PLACEHOLDER.split(line)[0] for line in templates]
    harmless = set(before)
    for line in after:
        if line in filled:
            yield filled[line]
        elif line in harmless:
            yield line
        else:
            yield _blanked(line, beginnings)


def _blanked(line: str, beginnings: Iterable[str]) -> str:
    for beginning in beginnings:
        # Spaces and quotes may have been changed by hand, the setting's name is what counts.
        if _letters(line).startswith(_letters(beginning)):
            return beginning + _BLANK
    return _SENSITIVE.sub(rf"\g<key>{_BLANK}", line)


def _letters(text: str) -> str:
    return re.sub(r"[\s\"']", "", text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\t\n" else f"\\x{ord(c):02x}" for c in text)
