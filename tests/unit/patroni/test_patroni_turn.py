"""A due restart of Patroni: standbys first, a leader hands over before, nobody outside of health."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostkit import due, patroni_form, patroni_turn, software
from hostkit.errors import HostError
from tests.unit.patroni.patroni_fakes import DB1, DB2, UNIT, World

DECLARED = "/service/lab/keadb-form/"
DROP_IN = "/etc/systemd/system/patroni.service.d/keadb.conf"


@pytest.fixture
def stale(running: World) -> Callable[..., World]:
    """Return a world maker: Patroni runs everywhere, and is due for a restart on the given hosts."""

    def make(*hosts: str) -> World:
        running.etcd.keys["/service/lab/initialize"] = "7300000000000000001"
        for name in (DB1, DB2):
            running.systems[name].active = "active"
        for name in hosts:
            due.add(running.ctx(name), UNIT, [DROP_IN])
        return running

    return make


def form(world: World, host: str) -> int:
    """Run the verb on a database host."""
    return patroni_form.main(world.ctx(host), [])


def test_a_standby_restarts_at_once_and_is_due_no_more(stale: Callable[..., World]) -> None:
    world = stale(DB2)
    assert form(world, DB2) == 0
    assert world.systems[DB2].verbs == ["restart"]
    assert due.due(world.ctx(DB2), UNIT) == ()
    assert world.patroni.acts == []
    assert world.etcd.keys[DECLARED + DB2] == "done"


def test_a_leader_hands_over_and_restarts_as_a_standby(stale: Callable[..., World]) -> None:
    world = stale(DB1)
    assert form(world, DB1) == 0
    assert world.patroni.acts == [(DB1, "/switchover", {"leader": DB1, "candidate": DB2})]
    assert world.systems[DB1].verbs == ["restart"]
    assert due.due(world.ctx(DB1), UNIT) == ()


def test_a_leader_waits_for_a_standby_that_is_due(stale: Callable[..., World]) -> None:
    world = stale(DB1)
    world.etcd.keys[DECLARED + DB2] = "due"
    moments = iter(range(100))

    def passes() -> None:
        if next(moments) == 5:
            assert world.patroni.acts == []
            assert world.etcd.keys[DECLARED + DB1] == "due"
            world.etcd.keys[DECLARED + DB2] = "done"

    world.systems[DB1].on_sleep = passes
    form(world, DB1)
    assert next(moments) > 5
    assert world.systems[DB1].verbs == ["restart"]


def test_without_health_nobody_is_restarted_and_the_restart_stays_due(stale: Callable[..., World]) -> None:
    world = stale(DB2)
    world.patroni.sync = None
    with pytest.raises(
        HostError, match=r"until its turn has come: there is no synchronous standby.*next run goes on"
    ):
        form(world, DB2)
    assert world.systems[DB2].verbs == []
    assert due.due(world.ctx(DB2), UNIT) == (DROP_IN,)


def test_a_handover_that_fails_restarts_nobody(stale: Callable[..., World]) -> None:
    world = stale(DB1)
    world.patroni.answers[DB1, "/switchover"] = (503, "no good candidates have been found")
    with pytest.raises(HostError, match=r"still leads .status 503: no good candidates"):
        form(world, DB1)
    assert world.systems[DB1].verbs == []


def test_a_standby_that_does_not_come_back_stays_due(
    stale: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs again by its own words, but the cluster is not healthy with it."""
    world = stale(DB2)
    monkeypatch.setattr(patroni_turn, "TURN_SECONDS", 50.0)
    system = world.systems[DB2]
    system.on_restart = lambda: setattr(world.patroni, "sync", None)
    with pytest.raises(HostError, match=f"the cluster is healthy with {DB2}: there is no synchronous standby"):
        form(world, DB2)
    assert due.due(world.ctx(DB2), UNIT) == (DROP_IN,)


def test_a_start_reads_everything(world: World) -> None:
    due.add(world.ctx(DB2), UNIT, [DROP_IN])
    world.etcd.keys["/service/lab/initialize"] = "7300000000000000001"
    world.systems[DB2].on_start = lambda: world.patroni.start(DB2)
    form(world, DB2)
    assert world.systems[DB2].verbs == ["reset-failed", "start"]
    assert due.due(world.ctx(DB2), UNIT) == ()


def test_an_upgraded_package_restarts_it_in_turn(
    stale: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded for it; a leader hands over as for a file."""
    world = stale()
    package = "patroni 4.0.8-1"
    monkeypatch.setattr(software, "newer", lambda _ctx, key: (package,) if key == "patroni" else ())
    assert form(world, DB1) == 0
    assert [path for _, path, _ in world.patroni.acts] == ["/switchover"]
    assert world.systems[DB1].verbs == ["restart"]
    assert world.etcd.keys[DECLARED + DB1] == "done"
