"""Engine events in the words of a site; and that no text made of them shows a command's stdin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pulumi.automation.events import EngineEvent

from ops.events import Failure, Place, Progress, Run, Said, State, place_of

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


def test_nothing_of_stdin_is_kept(run: Run) -> None:
    name = "us1-kea-db-01-secrets"
    run.take(event(resourcePreEvent=step(name, "create", new=state(name, {}))))
    run.take(event(resOutputsEvent=step(name, "create", new=state(name, {"stdout": "{}"}))))
    assert "HIDDEN-STDIN" not in repr(run)


def test_a_replacement_is_one_step_with_what_its_creation_did(run: Run) -> None:
    name = "us1-kea-db-01-etcd"
    summary = json.dumps({"bundle": "etcd", "changed": True})
    run.take(event(resourcePreEvent=step(name, "create-replacement")))
    run.take(event(resOutputsEvent=step(name, "create-replacement", new=state(name, {"stdout": summary}))))
    for op in ("replace", "delete-replaced"):
        assert run.take(event(resourcePreEvent=step(name, op))) is None
        assert run.take(event(resOutputsEvent=step(name, op))) is None
    (only,) = run.changed()
    assert (only.operation, only.state, only.ended) == ("replace", State.OK, 1.0)
    assert only.summary == {"bundle": "etcd", "changed": True}


def test_the_rest_of_a_replacement_is_no_step_of_its_own(run: Run) -> None:
    """A killed run may leave only this to do."""
    assert run.take(event(resourcePreEvent=step("us1-kea-db-01-etcd", "delete-replaced"))) is None
    assert run.steps == {}


def test_progress_of_a_running_step_is_its_last_line(run: Run) -> None:
    name = "us1-kea-db-01-etcd"
    assert run.take(diagnostic("too early", severity="info")) is None
    run.take(event(resourcePreEvent=step(name, "update")))
    said = run.take(diagnostic("one\nwaiting for \x1b[31mus1-kea-db-02\x07\n", severity="info"))
    assert said == Said(place=Place("us1-kea-db-01", "etcd"), line="waiting for us1-kea-db-02")
    assert run.steps[COMMAND + name].said == "waiting for us1-kea-db-02"
    run.take(event(resOutputsEvent=step(name, "update", new=state(name, {"stdout": "{}"}))))
    assert run.take(diagnostic("too late", severity="info")) is None


@pytest.mark.parametrize(
    ("answers", "alone"),
    [
        (['{"changed": false}', '{"changed": []}', '{"requests": {}}'], True),
        (['{"changed": false}', '{"changed": ["a"]}'], False),
        (['{"changed": true}'], False),
        (["{}"], False),
    ],
)
def test_a_run_that_changed_nothing_on_any_host_is_known(answers: list[str], alone: bool, run: Run) -> None:  # noqa: FBT001 -- parameters of the test
    for number, answer in enumerate(answers):
        name = f"us1-kea-db-01-{number}"
        run.take(event(resourcePreEvent=step(name, "create")))
        run.take(event(resOutputsEvent=step(name, "create", new=state(name, {"stdout": answer}))))
    assert run.left_hosts_alone is alone


def sent(name: str, document: Any) -> dict[str, Any]:
    """A state whose stdin is this document."""
    text = document if isinstance(document, str) else json.dumps(document)
    return state(name, {}) | {"inputs": {"stdin": text}}


BUNDLE: dict[str, Any] = {
    "files": {"/etc/a": {"content": "1"}, "/etc/b": {"content": "HIDDEN"}},
    "inputs": {"x": "1"},
    "steps": [],
}


@pytest.mark.parametrize(
    ("new", "inside"),
    [
        ({**BUNDLE, "files": {"/etc/a": {"content": "2"}, "/etc/b": BUNDLE["files"]["/etc/b"]}}, ("files /etc/a",)),
        ({**BUNDLE, "files": {}}, ("files /etc/a /etc/b",)),
        ({**BUNDLE, "files": {f"/etc/{n}": {} for n in range(4)}, "inputs": {"x": "2"}}, ("files (6)", "inputs")),
        ({**BUNDLE, "units": {"a.service": {}}}, ("units",)),
        (BUNDLE, ()),
        ("[secret]", ()),
        ('"text"', ()),
    ],
)
def test_what_differs_inside_what_is_sent_is_named(run: Run, new: Any, inside: tuple[str, ...]) -> None:
    name = "us1-kea-db-01-etcd"
    run.take(
        event(resourcePreEvent=step(name, "update", old=sent(name, BUNDLE), new=sent(name, new), diffs=["stdin"]))
    )
    (began,) = run.changed()
    assert (began.keys, began.inside) == (("stdin",), inside)
    assert "HIDDEN" not in repr(run)
