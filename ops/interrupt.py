"""Ctrl-C during a run: the first lets running steps end, the second stops at once, the third gives up waiting.

A terminal sends it to this process and to the engine alike, and the engine acts on it by itself: it begins no new
step, then ends at once. So nothing is stopped here: this process only says what happens, and stays to show how it
ended. Steps on hosts are never touched by it.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self

from ops.events import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from ops.events import Run

SAFE = "what already runs on a host goes on there, and the next 'keadb up' waits for it"


class Interrupts:
    """Counts Ctrl-C while it is entered; ``said`` gets one line for each. Does nothing outside the main thread."""

    def __init__(self, run: Run, said: Callable[[str], None]) -> None:
        self.count = 0
        self._run = run
        self._said = said
        self._before: object = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]  # what signal() gave

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            running = [str(step.place) for step in list(self._run.steps.values()) if step.state is State.RUNNING]
            waiting = f" once these have ended: {', '.join(running)}" if running else ""
            self._said(f"stopping{waiting}. No other step begins. Ctrl-C again stops at once: {SAFE}")
        elif self.count == 2:  # noqa: PLR2004 -- the second one
            self._said(f"stopping at once: {SAFE}")
        else:
            raise KeyboardInterrupt
