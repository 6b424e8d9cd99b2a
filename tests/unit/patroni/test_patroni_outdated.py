"""PostgreSQL that is older than its package: its host says so, and it is restarted in its turn, once."""

from __future__ import annotations

import json

import pytest

from hostkit import patroni_converge, patroni_form, software
from hostkit.errors import HostError
from tests.unit.patroni.patroni_fakes import DB1, DB2, WITNESS, World

NOTES = "/service/lab/keadb-outdated/"
PACKAGE = "postgresql-15 15.15-1"


@pytest.fixture
def upgraded(running: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a healthy cluster under which PostgreSQL's packages were upgraded, as its hosts have told."""
    running.etcd.keys["/service/lab/initialize"] = "7300000000000000001"
    outdated = {(running.folder / name, running.patroni.starts[name]) for name in (DB1, DB2)}

    def newer(ctx: object, key: str) -> tuple[str, ...]:
        root = ctx.root  # type: ignore[attr-defined]  # a Context
        runs = (root, running.patroni.starts.get(root.name))
        return (PACKAGE,) if key == "postgresql" and runs in outdated else ()

    monkeypatch.setattr(software, "newer", newer)
    for name in (DB1, DB2):
        running.systems[name].active = "active"
        assert patroni_form.main(running.ctx(name), []) == 0
    return running


def converge(world: World) -> int:
    """Run the verb on the control host."""
    return patroni_converge.main(world.ctx(WITNESS), [])


def restarts(world: World) -> list[tuple[str, dict[str, object]]]:
    """Return the nodes that were restarted, in order, and what was asked of them."""
    return [(name, body) for name, path, body in world.patroni.acts if path == "/restart"]


def test_its_host_only_tells(upgraded: World) -> None:
    """Nothing is restarted before somebody looks at both; the note names the very PostgreSQL that it is about."""
    assert upgraded.patroni.acts == []
    assert [upgraded.systems[name].verbs for name in (DB1, DB2)] == [[], []]
    assert json.loads(upgraded.etcd.keys[NOTES + DB2]) == {
        "started": "2026-11-23 10:00:01+00:00",
        "since": [PACKAGE],
    }


def test_the_standby_is_restarted_then_the_leader(upgraded: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Patroni has no flag for it, so it is not asked for one; afterwards nothing is left of it."""
    converge(upgraded)
    assert restarts(upgraded) == [(DB2, {"role": "replica"}), (DB1, {"role": "primary"})]
    captured = capsys.readouterr()
    assert f"restarting PostgreSQL on {DB2} (standby: {PACKAGE})" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["restarted"] == [DB2, DB1]
    assert not [key for key in upgraded.etcd.keys if key.startswith(NOTES)]
    converge(upgraded)
    assert len(restarts(upgraded)) == 2


def test_what_was_restarted_meanwhile_is_left_alone(upgraded: World) -> None:
    """By whatever: a note is about one start of PostgreSQL."""
    upgraded.patroni.starts[DB1] += 1
    converge(upgraded)
    assert [name for name, _ in restarts(upgraded)] == [DB2]


def test_with_a_lowered_limit_the_standby_is_restarted_twice(upgraded: World) -> None:
    """First for its package, then for the limit, which its leader has to have before."""
    upgraded.patroni.running_values = {DB1: {"max_connections": 150}, DB2: {"max_connections": 150}}
    converge(upgraded)
    assert [name for name, _ in restarts(upgraded)] == [DB2, DB1, DB2]
    assert upgraded.patroni.pending == {}


def test_a_run_that_was_cut_is_gone_on_with(upgraded: World) -> None:
    """The standby went, then the power: the next run restarts the leader, and only the leader."""
    upgraded.patroni.answers[DB1, "/restart"] = (500, "the power went")
    with pytest.raises(HostError, match=f"PostgreSQL on {DB1} was not restarted"):
        converge(upgraded)
    upgraded.patroni.answers.clear()
    upgraded.patroni.acts.clear()
    converge(upgraded)
    assert [name for name, _ in restarts(upgraded)] == [DB1]


def test_nothing_is_restarted_without_a_standby_that_follows(upgraded: World) -> None:
    """As for a parameter: the note waits."""
    upgraded.patroni.sync = None
    with pytest.raises(HostError, match=r"restarts can begin: .*there is no synchronous standby"):
        converge(upgraded)
    assert restarts(upgraded) == []
    assert NOTES + DB1 in upgraded.etcd.keys
