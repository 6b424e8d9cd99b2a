"""How a run is shown: a live table on a terminal, one line a step elsewhere, and the summary at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.events import News, Progress, Run, Said, State

STYLES = {State.RUNNING: "yellow", State.OK: "green", State.UNCHANGED: "dim", State.FAILED: "bold red"}
REFRESH_PER_SECOND = 5


class Display(Protocol):
    """Something that shows a run while it happens."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def show(self, run: Run, news: News) -> None:
        """Take note of what one event changed."""

    def note(self, text: str) -> None:
        """Tell people something while it happens, on stderr."""


class Silent:
    """Shows nothing: for ``--json``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def show(self, run: Run, news: News) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Say it all the same: stderr is for people."""
        click.echo(text, err=True)


class Lines(Silent):
    """One line when a step begins to work, one for each thing it tells, one when it ends; unchanged are left out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def show(self, run: Run, news: News) -> None:  # noqa: ARG002 -- the protocol's shape
        """Print the line of a step that began, told something or ended; failures come with the result."""
        at = time.monotonic() - self._began
        if isinstance(news, Said):
            self._console.print(
                f"{at:7.1f}s  {news.place}  {news.line}", highlight=False, markup=False, soft_wrap=True
            )
            return
        if not isinstance(news, Progress) or news.state is State.UNCHANGED:
            return
        took = f" after {news.ended - news.started:.1f} s" if news.ended is not None else ""
        self._console.print(
            f"{at:7.1f}s  {news.place}  {news.operation} {news.state}{took}", highlight=False, soft_wrap=True
        )


class Screen:
    """A table that is redrawn in place: hosts, their steps, state, elapsed seconds, the last thing they told.

    It goes when the run ends: the summary says the same for good.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._run: Run | None = None
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=REFRESH_PER_SECOND, transient=True
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, exc, trace)

    def show(self, run: Run, news: News) -> None:  # noqa: ARG002 -- the protocol's shape
        """Remember the run; the table is drawn by the clock."""
        self._run = run

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """Return the picture of this moment; its columns keep their places from one to the next."""
        now = self._clock()
        if self._run is None or not self._run.steps:
            return Text(f"starting the engine, {now - self._began:.0f} s", style="dim")
        # A copy: the engine's thread adds to it while this one draws.
        known = list(self._run.steps.values())
        steps = [s for s in known if s.state is not State.UNCHANGED]
        # A terminal has only so many lines; what runs or failed matters more than what is done.
        room = max(self._console.size.height - 3, 3)
        rank = {State.RUNNING: 1, State.FAILED: 0, State.OK: 2, State.UNCHANGED: 3}
        shown = sorted(steps, key=lambda s: (rank[s.state], -s.started))[:room]
        table = Table(box=None, pad_edge=False, show_header=False, expand=True)
        # As wide as the widest that may come, so that nothing jumps when it comes.
        table.add_column(no_wrap=True, min_width=max(len(s.place.host or "-") for s in known))
        table.add_column(no_wrap=True, min_width=max(len(s.place.step) for s in known))
        table.add_column(no_wrap=True, min_width=max(len(state) for state in STYLES))
        table.add_column(no_wrap=True, min_width=8, justify="right")
        table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
        for step in sorted(shown, key=lambda s: (s.place.host or "~", s.started)):
            elapsed = (step.ended or now) - step.started
            table.add_row(
                Text(step.place.host or "-"),
                Text(step.place.step),
                Text(step.state, style=STYLES[step.state]),
                f"{elapsed:.1f} s",
                Text(step.said if step.state is State.RUNNING else "", style="dim"),
            )
        return Group(table, self._foot(steps, unchanged=len(known) - len(steps), hidden=len(steps) - len(shown)))

    def _foot(self, steps: list[Progress], *, unchanged: int, hidden: int) -> Text:
        count = Counter(step.state for step in steps)
        parts = [f"{count[state]} {state}" for state in (State.OK, State.RUNNING, State.FAILED) if count[state]]
        parts += [f"{unchanged} unchanged"] if unchanged else []
        more = f" ({hidden} of them not shown)" if hidden else ""
        return Text(f"{', '.join(parts)}{more}, {self._clock() - self._began:.0f} s", style="dim", no_wrap=True)


def summary_table(run: Run, *, preview: bool) -> Table:
    """Return what changed (or would), a row a step, hosts in the site's order."""
    table = Table(box=None, pad_edge=False)
    for column in ("host", "step", "would" if preview else "did", "what changed"):
        table.add_column(column, overflow="fold")
    for step in run.changed():
        what = _differs(step) if preview or step.summary is None else _effects(step.summary)
        if preview and step.operation == "replace" and not set(step.keys) - {"id"}:
            what = "runs again"
        state = step.operation if step.state is not State.FAILED else f"{step.operation} failed"
        table.add_row(step.place.host or "-", step.place.step, state, what)
    return table


def _differs(step: Progress) -> str:
    """Return which inputs differ, and inside what is sent to the applier which parts of it."""
    if not step.inside:
        return ", ".join(step.keys)
    return ", ".join([*(key for key in step.keys if key != "stdin"), *step.inside])


def _effects(summary: Mapping[str, Any]) -> str:
    """Return the applier's summary in a few words: files, packages, units, steps that ran."""
    # A list names what changed: none did.
    if summary.get("changed") in (False, []):
        return "nothing on the host"
    parts: list[str] = ["the applier"] if "digest" in summary else []
    if files := summary.get("files"):
        parts.append(f"{len(files)} files" if len(files) > 3 else " ".join(files))  # noqa: PLR2004 -- still readable
    if packages := summary.get("packages"):
        parts.append(f"{len(packages)} packages")
    if units := summary.get("units"):
        parts.extend(f"{unit} {action}" for unit, action in units.items())
    if steps := summary.get("steps"):
        parts.extend(name for name, outcome in steps.items() if outcome == "ran")
    return ", ".join(parts)
