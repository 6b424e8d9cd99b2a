"""Engine events in the words of a site; and that no text made of them shows a command's stdin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pulumi.automation.events import EngineEvent

from ops.events import Failure, Place, Progress, Run, State, place_of, readable

HOSTS = ("us1-kea-db-01", "us1-kea-db-01-b", "us1-kea-witness")
COMMAND = "urn:pulumi:us1::keadb::keadb:components:Host$command:remote:Command::"
STACK_URN = "urn:pulumi:us1::keadb::pulumi:pulumi:Stack::keadb-us1"


def event(**fields: Any) -> EngineEvent:
    return EngineEvent.from_json({"sequence": 1, "timestamp": 1, **fields})


def step(name: str, op: str, **more: Any) -> dict[str, Any]:
    kind = "command:remote:Command"
    return {"metadata": {"op": op, "urn": COMMAND + name, "type": kind, "provider": "", **more}}


def state(name: str, outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "command:remote:Command",
        "urn": COMMAND + name,
        "id": "x",
        "parent": "",
        "provider": "",
        "inputs": {"stdin": "HIDDEN-STDIN"},
        "outputs": {**outputs, "stdin": "HIDDEN-STDIN"},
    }


@pytest.fixture
def run() -> Run:
    ticks = iter(range(1000))
    return Run(hosts=HOSTS, clock=lambda: float(next(ticks)))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("us1-kea-db-01-etcd", Place("us1-kea-db-01", "etcd")),
        ("us1-kea-db-01-patroni-form", Place("us1-kea-db-01", "patroni-form")),
        ("us1-kea-db-01-b-etcd", Place("us1-kea-db-01-b", "etcd")),
        ("us1-kea-witness", Place("us1-kea-witness", "host")),
        ("us1-etcd", Place(None, "us1-etcd")),
    ],
)
def test_names_of_resources_are_host_and_step(name: str, place: Place) -> None:
    assert place_of(COMMAND + name, HOSTS) == place


def test_a_step_that_runs_and_ends(run: Run) -> None:
    name = "us1-kea-db-01-etcd"
    began = run.take(event(resourcePreEvent=step(name, "update", diffs=["stdin", "triggers[0]"])))
    assert isinstance(began, Progress)
    assert (str(began.place), began.state, began.keys) == (
        "us1-kea-db-01: etcd",
        State.RUNNING,
        ("stdin", "triggers"),
    )
    summary = json.dumps({"bundle": "etcd", "changed": True, "files": {"/etc/x": "updated"}})
    ended = run.take(event(resOutputsEvent=step(name, "update", new=state(name, {"stdout": summary}))))
    assert ended is began
    assert ended.state is State.OK
    assert ended.summary == {"bundle": "etcd", "changed": True, "files": {"/etc/x": "updated"}}
    assert (ended.started, ended.ended) == (0.0, 1.0)


def test_unchanged_steps_and_groups_are_no_changes(run: Run) -> None:
    run.take(event(resourcePreEvent=step("us1-kea-db-01-etcd", "same")))
    run.take(event(resourcePreEvent={"metadata": {"op": "create", "urn": STACK_URN, "type": "", "provider": ""}}))
    assert (run.changes, run.changed()) == (0, [])


def test_the_engines_own_count_decides_about_changes(run: Run) -> None:
    run.take(
        event(summaryEvent={"maybeCorrupt": False, "durationSeconds": 1, "resourceChanges": {"same": 4, "delete": 2},
                            "policyPacks": {}})
    )  # fmt: skip
    assert run.changes == 2


def test_changes_are_listed_in_the_sites_order(run: Run) -> None:
    for name in ("us1-kea-witness-etcd", "us1-kea-db-01-etcd", "us1-kea-db-01-base"):
        run.take(event(resourcePreEvent=step(name, "create")))
    assert [str(s.place) for s in run.changed()] == [
        "us1-kea-db-01: etcd",
        "us1-kea-db-01: base",
        "us1-kea-witness: etcd",
    ]


def diagnostic(message: str, *, urn: str | None = COMMAND + "us1-kea-db-01-etcd", severity: str = "error") -> Any:
    return event(diagnosticEvent={"message": message, "color": "never", "severity": severity, "urn": urn})


def test_error_names_host_and_step_once(run: Run) -> None:
    message = (
        '<{%reset%}>Process exited with status 1: running "sudo -n /usr/lib/keadb/keadb-apply apply":\n'
        "keadb-apply apply: unit etcd.service does not start\n<{%reset%}>"
    )
    assert str(run.take(diagnostic(message))) == (
        "us1-kea-db-01: etcd: keadb-apply apply: unit etcd.service does not start"
    )
    assert run.take(diagnostic(message)) is None
    assert run.take(diagnostic("update failed", urn=STACK_URN)) is None
    assert len(run.failures) == 1


def test_errors_of_the_program_come_without_their_traceback(run: Run) -> None:
    said = "stack us1 has no value for x"
    message = f"python inline source runtime error: {said}\nTraceback (most recent call last):\n a"
    assert run.take(diagnostic(message, urn=STACK_URN)) == Failure(place=None, message=said)


def test_warnings_and_infos_are_no_failures(run: Run) -> None:
    run.take(diagnostic("pending operations", severity="warning"))
    run.take(diagnostic("etcd is started", severity="info"))
    assert (run.failures, run.warnings) == ([], ["pending operations"])


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ('exit status 1: running "a \\"quoted\\" one":\nwhy', "why"),
        ('exit status 7: running "true":\n', "exit status 7"),
        ("dial tcp 172.30.17.10:22: connection refused", "dial tcp 172.30.17.10:22: connection refused"),
        ("", "failed and said nothing"),
        ("\n".join(f"line {n}" for n in range(40)), "\n".join(["[...]", *(f"line {n}" for n in range(28, 40))])),
    ],
)
def test_what_people_read_of_an_error(message: str, shown: str) -> None:
    assert readable(message) == shown


def test_nothing_of_stdin_is_kept(run: Run) -> None:
    name = "us1-kea-db-01-secrets"
    run.take(event(resourcePreEvent=step(name, "create", new=state(name, {}))))
    run.take(event(resOutputsEvent=step(name, "create", new=state(name, {"stdout": "{}"}))))
    assert "HIDDEN-STDIN" not in repr(run)
