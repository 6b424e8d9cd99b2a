"""What a campaign's runs say together: one row a fault and parameter set, as a table on a terminal or in Markdown.

Pure functions over records: nothing is read, and the same records give the same text. How a single run went is the
picture's business (``ops.drill_picture``).
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ops.drill_record import Record, Verdict

NOTHING = "-"
NEVER = "never"
STYLES = {Verdict.RIGHT: "green", Verdict.ABOVE_TARGET: "yellow", Verdict.WRONG: "bold red"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """All runs of one fault with one parameter set; times are in seconds.

    ``write_fault``, ``write_heal`` and ``read`` hold the longest gap of each run, in the order of the runs;
    ``write_heal`` is empty for a fault that heals itself. ``rejoin`` has None for a run that was never whole again.
    """

    fault: str
    parameters: str
    runs: int
    right: int
    above_target: int
    wrong: int
    lost: int
    two_leaders: int
    manual_steps: int
    write_fault: tuple[float, ...]
    write_heal: tuple[float, ...]
    read: tuple[float, ...]
    stopped_accepting: tuple[float, ...]
    rejoin: tuple[float | None, ...]
    vip_moves: tuple[int, ...]
    target: float | None

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the runs."""
        if self.wrong:
            return Verdict.WRONG
        return Verdict.ABOVE_TARGET if self.above_target else Verdict.RIGHT


def rows(records: Iterable[Record], *, faults: Sequence[str] = ()) -> list[Row]:
    """Return one row for each fault and parameter set.

    Faults come in the order of ``faults``, then those it does not name by their names; sets by the order of their
    first record.
    """
    kept = list(records)
    order = {name: position for position, name in enumerate(faults)}
    sets = list(dict.fromkeys(record.parameters for record in kept))
    kept.sort(key=lambda r: (order.get(r.fault, len(order)), r.fault, sets.index(r.parameters), r.run))
    grouped = itertools.groupby(kept, key=lambda r: (r.fault, r.parameters))
    return [_row(list(group)) for _, group in grouped]


def _row(runs: list[Record]) -> Row:
    verdicts = [run.verdict for run in runs]
    return Row(
        fault=runs[0].fault,
        parameters=runs[0].parameters,
        runs=len(runs),
        right=verdicts.count(Verdict.RIGHT),
        above_target=verdicts.count(Verdict.ABOVE_TARGET),
        wrong=verdicts.count(Verdict.WRONG),
        lost=sum(len(run.lost) for run in runs),
        two_leaders=sum(run.two_leaders for run in runs),
        manual_steps=sum(run.manual_steps for run in runs),
        write_fault=tuple(run.write.longest_at_fault_s for run in runs),
        write_heal=tuple(run.write.longest_at_heal_s for run in runs if run.phases.heal is not None),
        read=tuple(run.read.longest_s for run in runs),
        stopped_accepting=tuple(r.stopped_accepting_s for r in runs if r.stopped_accepting_s is not None),
        rejoin=tuple(run.rejoin_s for run in runs),
        vip_moves=tuple(run.vip_moves for run in runs),
        target=min((run.target_s for run in runs if run.target_s is not None), default=None),
    )


def seconds(value: float | None) -> str:
    """Return seconds with one place; None is nothing."""
    return NOTHING if value is None else f"{value:.1f}"


def worst_and_median(values: Sequence[float]) -> str:
    """Return the worst and the median in seconds: ``21.5 (20.9)``; one value stands alone."""
    if not values:
        return NOTHING
    if len(values) == 1:
        return seconds(values[0])
    return f"{seconds(max(values))} ({seconds(statistics.median(values))})"


def whole_again(values: Sequence[float | None]) -> str:
    """Return worst and median of the times until whole; runs that never were are counted and come first."""
    found = [value for value in values if value is not None]
    missing = len(values) - len(found)
    if not missing:
        return worst_and_median(found)
    never = f"{NEVER} ({missing} of {len(values)})"
    return f"{never}, else {worst_and_median(found)}" if found else never


def spread(values: Sequence[int]) -> str:
    """Return the least and the most: ``0 to 1``, or the one number that all are."""
    if not values:
        return NOTHING
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Column:
    """One column: its heading, its text of a row, and its style of a row (empty: none)."""

    heading: str
    text: Callable[[Row], str]
    style: Callable[[Row], str] = lambda _row: ""
    numbers: bool = True


def _bad(count: Callable[[Row], int]) -> Callable[[Row], str]:
    return lambda row: STYLES[Verdict.WRONG] if count(row) else ""


def _above(row: Row, gaps: Sequence[float]) -> str:
    """Return the style of write gaps: of those above the target, or none."""
    above = row.target is not None and max(gaps, default=0.0) > row.target
    return STYLES[Verdict.ABOVE_TARGET] if above else ""


COLUMNS = (
    Column("fault", lambda r: r.fault, numbers=False),
    Column("parameters", lambda r: r.parameters, numbers=False),
    Column("runs", lambda r: str(r.runs)),
    Column("right", lambda r: str(r.right), lambda r: STYLES[Verdict.RIGHT] if r.right == r.runs else ""),
    Column(
        "above target", lambda r: str(r.above_target), lambda r: STYLES[Verdict.ABOVE_TARGET] * bool(r.above_target)
    ),
    Column("wrong", lambda r: str(r.wrong), _bad(lambda r: r.wrong)),
    Column("ids lost", lambda r: str(r.lost), _bad(lambda r: r.lost)),
    Column("two leaders", lambda r: str(r.two_leaders), _bad(lambda r: r.two_leaders)),
    Column("manual steps", lambda r: str(r.manual_steps), _bad(lambda r: r.manual_steps)),
    Column(
        "write gap at fault",
        lambda r: worst_and_median(r.write_fault),
        lambda r: _above(r, r.write_fault),
    ),
    Column("at heal", lambda r: worst_and_median(r.write_heal), lambda r: _above(r, r.write_heal)),
    Column("target", lambda r: seconds(r.target)),
    Column("worst read gap", lambda r: seconds(max(r.read))),
    Column("old leader stopped", lambda r: seconds(max(r.stopped_accepting, default=None))),
    Column(
        "whole again",
        lambda r: whole_again(r.rejoin),
        _bad(lambda r: sum(value is None for value in r.rejoin)),
    ),
    Column("VIP moves", lambda r: spread(r.vip_moves)),
)
"""Every column of both tables, in their order."""


_NAMES, _TIMES = COLUMNS[:3], COLUMNS[9:]
ON_A_TERMINAL = (
    *_NAMES,
    Column(
        "right/above/wrong",
        lambda r: f"{r.right}/{r.above_target}/{r.wrong}",
        lambda r: STYLES[r.verdict],
    ),
    Column(
        "lost/two leaders/manual",
        lambda r: f"{r.lost}/{r.two_leaders}/{r.manual_steps}",
        _bad(lambda r: r.lost + r.two_leaders + r.manual_steps),
    ),
    *_TIMES,
)
"""The same for a terminal, which is only so wide: the counts share two columns."""


def columns(of: Sequence[Row], among: Sequence[Column] = COLUMNS) -> tuple[Column, ...]:
    """Return the columns that say something: the parameter set only where there is more than one."""
    several = len({row.parameters for row in of}) > 1
    return tuple(column for column in among if several or column.heading != "parameters")


def table(of: Sequence[Row]) -> Table:
    """Return the rows for a terminal; colours are the console's business."""
    made = Table(box=None, pad_edge=False)
    shown = columns(of, ON_A_TERMINAL)
    for column in shown:
        # A word a line: the numbers decide how wide a column is.
        heading = column.heading.replace(" ", "\n").replace("/", "/\n")
        side: Literal["left", "right"] = "right" if column.numbers else "left"
        made.add_column(heading, justify=side, vertical="bottom", no_wrap=True)
    for row in of:
        made.add_row(*(Text(column.text(row), style=column.style(row)) for column in shown))
    return made


def show(records: Iterable[Record], console: Console, *, faults: Sequence[str] = ()) -> None:
    """Print the table and what its numbers are."""
    found = rows(records, faults=faults)
    if not found:
        console.print("no run is finished yet", markup=False)
        return
    made = table(found)
    # As wide as it needs to be, also on a terminal that is not: a broken line is better than a cut number.
    needs = Measurement.get(console, console.options.update(width=WIDEST), made)
    console.width = max(console.width, needs.maximum)
    console.print(made)
    console.print(LEGEND, markup=False, soft_wrap=True, style="dim")


WIDEST = 10_000
LEGEND = (
    "Seconds; worst of the runs, the median in brackets. Whole again: from the heal, or the fault if it heals itself."
)


def markdown(of: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, for docs/; ends in one newline."""
    shown = columns(of)
    lines = [
        "| " + " | ".join(column.heading for column in shown) + " |",
        "|" + "|".join("--:" if column.numbers else "---" for column in shown) + "|",
        *("| " + " | ".join(_cell(column.text(row)) for column in shown) + " |" for row in of),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
