"""The record of what was last applied: one file a bundle, the base for drift and for new certificates."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit import bundle as bundles
from hostkit.errors import HostError
from hostkit.files import Owner, make_private, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hostkit.context import Context
    from hostkit.placing import Placement

FOLDER = "/var/lib/keadb/applied"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A bundle that was applied to its end, and digest, mode and owner of every path it placed."""

    bundle: bundles.Bundle
    files: Mapping[str, Mapping[str, Any]]


def write(ctx: Context, bundle: bundles.Bundle, placed: Iterable[Placement]) -> None:
    """Record this bundle as applied; leaves a record that says the same untouched."""
    _write(ctx, Record(bundle, {item.path: item.record() for item in placed}))


def refresh(ctx: Context, record: Record, placed: Iterable[Placement]) -> None:
    """Put these placements in the place of their older selves in a record."""
    _write(ctx, Record(record.bundle, {**record.files, **{item.path: item.record() for item in placed}}))


def _write(ctx: Context, record: Record) -> None:
    content = {"format": FORMAT, "bundle": record.bundle.raw, "files": record.files}
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    make_private(ctx, FOLDER)
    replace(ctx, f"{FOLDER}/{record.bundle.name}.json", text.encode(), mode=0o600, owner=Owner.root(ctx))


def records(ctx: Context) -> list[Record]:
    """Return all records, by bundle name."""
    return [_read(ctx, path.name) for path in sorted(ctx.path(FOLDER).glob("*.json"))]


def digests(ctx: Context) -> dict[str, str]:
    """Return the digest of every applied bundle's data by its name; an empty one for a record that is unreadable.

    The program makes the same digest of what it sent, so it is made of the data, not of the text.
    """
    found = {}
    for path in sorted(ctx.path(FOLDER).glob("*.json")):
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))["bundle"]
            found[path.stem] = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()
        except (ValueError, KeyError, TypeError):
            found[path.stem] = ""
    return found


def _read(ctx: Context, name: str) -> Record:
    try:
        given = json.loads(ctx.path(f"{FOLDER}/{name}").read_text(encoding="utf-8"))
        return Record(bundles.parse(json.dumps(given["bundle"])), given["files"])
    except (ValueError, KeyError, TypeError, HostError) as e:
        msg = f"{FOLDER}/{name}: {type(e).__name__}: {e}; remove it and run 'keadb up'"
        raise HostError(msg) from None
