"""What people see while it runs and at the end."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from ops.events import Place, Progress, Run, State
from ops.progress import Lines, Screen, summary_table


def progress(step: str, state: State, *, host: str = "h1", **more: Any) -> Progress:
    place = Place(host, step)
    return Progress(place=place, urn=step, operation="update", state=state, started=1.0, ended=3.5, **more)


def written(show: object) -> str:
    out = io.StringIO()
    Console(file=out, width=120, highlight=False).print(show)
    return out.getvalue()


def test_summary_names_what_changed_on_each_host() -> None:
    summary = {
        "changed": True,
        "files": {"/etc/a": "updated"},
        "packages": ["etcd-server", "etcd-client"],
        "units": {"etcd.service": "restarted"},
        "steps": {"kea roles": "ran", "old": "skipped"},
    }
    run = Run(hosts=("h1", "h2"))
    run.steps = {
        "b": progress("base", State.OK, host="h2", summary={"changed": False}),
        "a": progress("etcd", State.OK, summary=summary),
        "c": progress("patroni", State.FAILED, host="h2"),
    }
    lines = [" ".join(line.split()) for line in written(summary_table(run, preview=False)).splitlines()]
    assert lines[1:] == [
        "h1 etcd update /etc/a, 2 packages, etcd.service restarted, kea roles",
        "h2 base update nothing on the host",
        "h2 patroni update failed",
    ]


def test_preview_names_the_inputs_that_differ() -> None:
    run = Run(hosts=("h1",))
    run.steps = {"a": progress("etcd", State.OK, keys=("stdin", "triggers"))}
    assert "stdin, triggers" in written(summary_table(run, preview=True))


def test_plain_lines_only_for_steps_that_do_something() -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=120, highlight=False))
    run = Run(hosts=("h1",))
    for state in (State.UNCHANGED, State.OK):
        lines.show(run, progress("etcd", state))
    assert out.getvalue().count("\n") == 1
    assert "h1: etcd  update ok after 2.5 s" in out.getvalue()


def test_screen_keeps_running_and_failed_steps_in_view() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=100, height=10, force_terminal=True))
    run = Run(hosts=("h1",))
    run.steps = {str(n): progress(f"done-{n}", State.OK) for n in range(30)}
    run.steps["running"] = progress("slow", State.RUNNING)
    run.steps["failed"] = progress("broken", State.FAILED)
    screen.show(run, None)
    text = written(screen._render())
    assert "slow" in text
    assert "broken" in text
    assert "26 more" in text
