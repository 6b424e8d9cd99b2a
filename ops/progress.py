"""How a run is shown: a live table on a terminal, one line a step elsewhere, and the summary at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.events import Failure, Progress, Run, State

STYLES = {State.RUNNING: "yellow", State.OK: "green", State.UNCHANGED: "dim", State.FAILED: "bold red"}
REFRESH_PER_SECOND = 5


class Display(Protocol):
    """Something that shows a run while it happens."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def show(self, run: Run, news: Progress | Failure | None) -> None:
        """Take note of what one event changed."""


class Silent:
    """Shows nothing: for ``--json``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def show(self, run: Run, news: Progress | Failure | None) -> None:
        """Show nothing."""


class Lines(Silent):
    """One line when a step begins to work and one when it ends; unchanged steps are left out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def show(self, run: Run, news: Progress | Failure | None) -> None:  # noqa: ARG002 -- the protocol's shape
        """Print the line of a step that began or ended; failures come with the result."""
        if not isinstance(news, Progress) or news.state is State.UNCHANGED:
            return
        at = time.monotonic() - self._began
        took = f" after {news.ended - news.started:.1f} s" if news.ended is not None else ""
        self._console.print(
            f"{at:7.1f}s  {news.place}  {news.operation} {news.state}{took}", highlight=False, soft_wrap=True
        )


class Screen:
    """A table that is redrawn in place: hosts, their steps, state, elapsed seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._run: Run | None = None
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=REFRESH_PER_SECOND)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, exc, trace)

    def show(self, run: Run, news: Progress | Failure | None) -> None:  # noqa: ARG002 -- the protocol's shape
        """Remember the run; the table is drawn by the clock."""
        self._run = run

    def _render(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        if self._run is None:
            table.add_row(Text("starting the engine", style="dim"))
            return table
        steps = [s for s in self._run.steps.values() if s.state is not State.UNCHANGED]
        unchanged = len(self._run.steps) - len(steps)
        # A terminal has only so many lines; what runs or failed matters more than what is done.
        room = max(self._console.size.height - 4, 5)
        rank = {State.RUNNING: 1, State.FAILED: 0, State.OK: 2, State.UNCHANGED: 3}
        shown = sorted(steps, key=lambda s: (rank[s.state], -s.started))[:room]
        now = time.monotonic()
        for step in sorted(shown, key=lambda s: (s.place.host or "~", s.started)):
            elapsed = (step.ended or now) - step.started
            table.add_row(
                step.place.host or "-",
                step.place.step,
                Text(step.state, style=STYLES[step.state]),
                f"{elapsed:.1f} s",
            )
        table.add_row(Text(f"{unchanged} unchanged, {len(steps) - len(shown)} more", style="dim"))
        return table


def summary_table(run: Run, *, preview: bool) -> Table:
    """Return what changed (or would), a row a step, hosts in the site's order."""
    table = Table(box=None, pad_edge=False)
    for column in ("host", "step", "would" if preview else "did", "what changed"):
        table.add_column(column, overflow="fold")
    for step in run.changed():
        what = ", ".join(step.keys) if preview else _effects(step.summary)
        state = step.operation if step.state is not State.FAILED else f"{step.operation} failed"
        table.add_row(step.place.host or "-", step.place.step, state, what)
    return table


def _effects(summary: Mapping[str, Any] | None) -> str:
    """Return the applier's summary in a few words: files, packages, units, steps that ran."""
    if summary is None:
        return ""
    if summary.get("changed") is False:
        return "nothing on the host"
    parts: list[str] = []
    if files := summary.get("files"):
        parts.append(f"{len(files)} files" if len(files) > 3 else " ".join(files))  # noqa: PLR2004 -- still readable
    if packages := summary.get("packages"):
        parts.append(f"{len(packages)} packages")
    if units := summary.get("units"):
        parts.extend(f"{unit} {action}" for unit, action in units.items())
    if steps := summary.get("steps"):
        parts.extend(name for name, outcome in steps.items() if outcome == "ran")
    return ", ".join(parts)
