"""What people see while it runs and at the end."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from ops.events import Place, Progress, Run, Said, State
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
    run.steps["a"].inside = ("files /etc/a", "inputs")
    assert "triggers, files /etc/a, inputs" in written(summary_table(run, preview=True))


def test_a_failed_step_shows_what_it_was_to_change() -> None:
    run = Run(hosts=("h1",))
    run.steps = {"a": progress("etcd", State.FAILED, keys=("stdin",), inside=("files /etc/a",))}
    assert "update failed files /etc/a" in " ".join(written(summary_table(run, preview=False)).split())


def test_plain_lines_only_for_steps_that_do_something() -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=120, highlight=False))
    run = Run(hosts=("h1",))
    for state in (State.UNCHANGED, State.OK):
        lines.show(run, progress("etcd", state))
    assert out.getvalue().count("\n") == 1
    assert "h1: etcd  update ok after 2.5 s" in out.getvalue()


def test_plain_lines_for_what_a_step_tells() -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=40, highlight=False))
    lines.show(Run(hosts=("h1",)), Said(place=Place("h1", "etcd"), line="waiting for [red]h2[/red] since 10 s, " * 2))
    assert out.getvalue().count("\n") == 1
    assert "h1: etcd  waiting for [red]h2[/red] since 10 s" in out.getvalue()


def test_screen_shows_the_last_thing_a_running_step_told_on_its_own_line() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=10, force_terminal=True)
    screen = Screen(console, clock=lambda: 9.0)
    run = Run(hosts=("h1",))
    run.steps = {
        "a": progress("etcd-form", State.RUNNING, said="waiting for h2 [x] " * 9),
        "b": progress("base", State.OK, said="old"),
    }
    run.steps["a"].ended = None
    screen.show(run, None)
    text = io.StringIO()
    Console(file=text, width=80).print(screen.render())
    lines = text.getvalue().splitlines()
    assert [line.split()[:5] for line in lines[:2]] == [
        ["h1", "etcd-form", "running", "8.0", "s"],
        ["h1", "base", "ok", "2.5", "s"],
    ]
    assert "waiting for h2 [x]" in lines[0]
    assert lines[0].endswith("…")
    assert "old" not in lines[1]
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80


def test_columns_keep_their_places_while_steps_come() -> None:
    run = Run(hosts=("h1",))
    run.steps = {"a": progress("a-very-long-step", State.UNCHANGED), "b": progress("b", State.RUNNING, said="one")}
    screen = Screen(Console(file=io.StringIO(), width=80, height=10), clock=lambda: 4.0)
    screen.show(run, None)
    before = written(screen.render()).splitlines()[0].index("one")
    run.steps["a"].state, run.steps["b"].state = State.FAILED, State.RUNNING
    rows = written(screen.render()).splitlines()
    assert next(row.index("one") for row in rows if "one" in row) == before


def test_screen_keeps_running_and_failed_steps_in_view() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=100, height=10, force_terminal=True))
    run = Run(hosts=("h1",))
    run.steps = {str(n): progress(f"done-{n}", State.OK) for n in range(30)}
    run.steps["running"] = progress("slow", State.RUNNING)
    run.steps["failed"] = progress("broken", State.FAILED)
    screen.show(run, None)
    text = written(screen.render())
    assert "slow" in text
    assert "broken" in text
    assert "30 ok, 1 running, 1 failed (25 of them not shown)" in text
