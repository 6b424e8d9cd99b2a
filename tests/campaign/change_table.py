"""The results of the campaign of changes as a Markdown table, in the form of docs/changes.md."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD = (
    "| change | previewed | restarts, in order | leadership moves | longest write gap | longest read gap | `up` |",
    "|---|---|---|---|---|---|---|",
)


def table(results: Iterable[dict[str, Any]]) -> str:
    """Return the table: one row a change, one more for its way back where that does something else."""
    rows = []
    for result in results:
        there, back = result["there"], result.get("back")
        wrong = " **WRONG**" if result["wrong"] else ""
        rows.append(_row(f"{result['what']}{wrong}", there))
        if back is not None:
            rows.append(_row("&nbsp; and back", back))
    return "\n".join([*HEAD, *rows]) + "\n"


BEGIN, END = "<!-- measured: python -m tests.campaign.changes -->", "<!-- end of measured -->"


def put_into(text: str, table: str) -> str:
    """Return a document with the table between its two marks instead of what is there; ValueError without marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        msg = f"the document has no line {BEGIN!r} with {END!r} after it"
        raise ValueError(msg)
    return f"{head}{BEGIN}\n\n{table}\n{END}{tail}"


def _row(what: str, leg: dict[str, Any]) -> str:
    moves = [f"Patroni's, to {', '.join(leg['leader_moves'])}"] if leg["leader_moves"] else []
    moves += [f"etcd's, to {', '.join(leg['etcd_moves'])}"] if leg["etcd_moves"] else []
    cells = (
        what,
        _previewed(leg),
        _together(leg["restarts"]) or _only_reloads(leg.get("reloads", [])),
        "; ".join(moves) or "no",
        _gap(leg["write_gap"]),
        _gap(leg["read_gap"]),
        f"{leg['up']:.1f} s",
    )
    return f"| {' | '.join(cells)} |"


def _gap(seconds: float) -> str:
    return "none" if seconds < 0.3 else f"{seconds:.1f} s"


def _previewed(leg: dict[str, Any]) -> str:
    """Return the number of steps, and each changed file once with its lines and on how many hosts."""
    if not leg["steps"] and not leg["files"]:
        return "-"
    steps = f"{len(leg['steps'])} step{'' if len(leg['steps']) == 1 else 's'}"
    files = Counter((name.partition(":")[2], lines) for name, lines in leg["files"].items())
    shown = [
        f"`{path.rpartition('/')[2]}` {lines}{f' on {count} hosts' if count > 1 else ''}"
        for (path, lines), count in files.items()
    ]
    return "; ".join([steps, *shown])


def _only_reloads(reloads: list[str]) -> str:
    services = ", ".join(dict.fromkeys(r.partition(" ")[0] for r in reloads))
    return f"none (reloaded: {services})" if services else "none"


def _together(restarts: list[str]) -> str:
    """Return starts in order, service once for a run of its own: "PostgreSQL: standby, leader"."""
    parts = []
    for service, group in itertools.groupby(restarts, key=lambda r: r.partition(" ")[0]):
        parts.append(f"{service}: {', '.join(r.partition(' ')[2] for r in group)}")
    return "; ".join(parts)
