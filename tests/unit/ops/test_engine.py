"""The engine's text without its end, exit codes, and what `--json` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from pulumi import automation as auto

from ops import engine
from ops.events import Failure, Run
from ops.exits import Exit
from ops.progress import Silent


def test_diff_text_ends_before_the_engines_own_diagnostics() -> None:
    seen: list[str] = []
    line = engine._without_diagnostics(seen.append)
    for text in ("+ stdin", "\x1b[1mDiagnostics:\x1b[0m", "  running <the whole command>"):
        line(text)
    assert seen == ["+ stdin"]


def test_reader_that_went_away_never_stops_the_engines_output() -> None:
    def gone(_text: str) -> None:
        raise BrokenPipeError

    line = engine._without_diagnostics(gone)
    line("one")
    line("two")


@pytest.mark.parametrize("how", [BrokenPipeError, SystemExit])
def test_a_watcher_that_went_away_never_stops_the_run(how: type[BaseException]) -> None:
    """``keadb up`` of a pipeline that was ended: rich makes an exit of the broken pipe, inside the event's thread."""
    taken: list[str] = []

    class Counting(Run):
        def take(self, event: Any) -> None:
            taken.append(event)

    class Gone(Silent):
        def show(self, run: Run, news: object) -> None:  # noqa: ARG002 -- the protocol's shape
            shown.append(len(taken))
            raise how

    class Handle:
        def up(self, *, on_event: Callable[[str], None], **_more: Any) -> None:
            for event in ("one", "two", "three"):
                on_event(event)

    shown: list[int] = []
    stack = cast("auto.Stack", Handle())
    assert engine._attempt(stack, "up", Counting(hosts=()), Gone(), engine.Options()) == ""
    assert (taken, shown) == (["one", "two", "three"], [1])


@pytest.mark.parametrize(
    ("failed", "changes", "expected", "code"),
    [
        (False, 0, True, Exit.OK),
        (False, 3, False, Exit.OK),
        (False, 3, True, Exit.CHANGES),
        (True, 3, True, Exit.FAILED),
    ],
)
def test_exit_codes(failed: bool, changes: int, expected: bool, code: Exit) -> None:  # noqa: FBT001 -- parameters of the test
    run = Run(hosts=(), counts={"same": 4, "update": changes})
    result = engine.Result(stack="s", operation="up", run=run, seconds=1.0, failed=failed)
    assert result.exit_code(expect_no_changes=expected) == code


def test_engine_error_without_an_event_is_still_shown() -> None:
    text = "\n code: 255\n stdout: \n stderr: error: could not load plugin\nmore\n"
    assert engine._engine_error(text) == "could not load plugin"


def test_json_result_names_host_and_step_of_failures() -> None:
    from ops.events import Place

    run = Run(hosts=("h",), failures=[Failure(place=Place("h", "etcd"), message="why")])
    result = engine.Result(stack="s", operation="up", run=run, seconds=1.04, failed=True).as_dict()
    assert result["failures"] == [{"host": "h", "step": "etcd", "message": "why"}]
    assert (result["result"], result["seconds"]) == ("failed", 1.0)
