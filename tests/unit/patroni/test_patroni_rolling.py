"""Rolling restarts: the order by direction, one at a time and only in health, and a cut run that is continued."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components import postgres_cluster as pg
from hostkit import patroni_converge
from hostkit.errors import HostError
from hostkit.patroni_rolling import chosen
from keadb.site import load_site
from tests.unit.core.samples import ha, put
from tests.unit.patroni.patroni_fakes import DB1, DB2, WITNESS, World

LIMITS = {"max_connections": 100, "max_worker_processes": 8}


@pytest.fixture
def limited(running: World) -> World:
    """Return a healthy cluster whose nodes run with known limits."""
    running.patroni.running_values = {DB1: dict(LIMITS), DB2: dict(LIMITS)}
    return running


def converge(world: World) -> int:
    """Run the verb on the control host."""
    return patroni_converge.main(world.ctx(WITNESS), [])


def declare(world: World, connections: int, **parameters: Any) -> None:
    """Change the site file and place the new plan."""
    site = put(put(ha(), "postgresql/max_connections", connections), "postgresql/parameters", parameters)
    world.place(pg.patroni_settings_bundle(load_site(site, source="test")))


def restarts(world: World) -> list[str]:
    """Return the nodes that were restarted, in order."""
    return [name for name, path, _ in world.patroni.acts if path == "/restart"]


class TestOrder:
    def test_a_raised_limit_goes_standby_first(self, limited: World, capsys: pytest.CaptureFixture[str]) -> None:
        declare(limited, 150)
        converge(limited)
        assert restarts(limited) == [DB2, DB1]
        assert limited.patroni.pending == {}
        assert {v["max_connections"] for v in limited.patroni.running_values.values()} == {150}
        captured = capsys.readouterr()
        assert json.loads(captured.out)["restarted"] == [DB2, DB1]
        assert f"restarting PostgreSQL on {DB2} (standby: max_connections 100 => 150)" in captured.err

    def test_a_lowered_limit_goes_leader_first(self, limited: World) -> None:
        declare(limited, 50)
        converge(limited)
        assert restarts(limited) == [DB1, DB2]
        assert limited.patroni.pending == {}
        assert {v["max_connections"] for v in limited.patroni.running_values.values()} == {50}

    def test_one_up_and_one_down_takes_the_standby_twice(self, limited: World) -> None:
        declare(limited, 50, max_worker_processes=16)
        converge(limited)
        assert restarts(limited) == [DB2, DB1, DB2]
        assert limited.patroni.pending == {}

    def test_roles_are_those_of_run_time(self, limited: World) -> None:
        limited.patroni.leader, limited.patroni.sync = DB2, DB1
        limited.patroni.states = {DB1: "streaming", DB2: "running"}
        declare(limited, 150)
        converge(limited)
        assert restarts(limited) == [DB1, DB2]

    def test_anything_else_goes_standby_first(self, running: World) -> None:
        running.patroni.pending = {
            DB1: {"shared_buffers": {"old_value": "128MB", "new_value": "64MB"}},
            DB2: {"shared_buffers": {"old_value": "128MB", "new_value": "64MB"}},
        }
        converge(running)
        assert restarts(running) == [DB2, DB1]

    def test_a_standby_that_alone_waits_for_a_lowered_limit_is_restarted(self) -> None:
        lowered = {"max_connections": {"old_value": "150", "new_value": "100"}}
        assert chosen({DB2: lowered}, DB1) == DB2
        assert chosen({DB1: lowered, DB2: lowered}, DB1) == DB1
        assert chosen({DB1: lowered, DB2: {}}, DB1) == DB2


class TestCare:
    def test_the_leader_is_not_touched_before_the_standby_streams_again(self, limited: World) -> None:
        fake = limited.patroni
        declare(limited, 150)

        def away(name: str, path: str) -> None:
            if name == DB2 and path == "/restart":
                fake.sync, fake.states[DB2] = None, "starting"

        waited = iter(range(100))

        def back() -> None:
            if fake.sync is None and next(waited) == 5:
                assert restarts(limited) == [DB2]
                fake.sync, fake.states[DB2] = DB2, "streaming"

        fake.on_act = away
        limited.systems[WITNESS].on_sleep = back
        converge(limited)
        assert restarts(limited) == [DB2, DB1]

    def test_a_standby_that_stays_away_ends_the_run_and_the_next_goes_on(self, limited: World) -> None:
        fake = limited.patroni
        declare(limited, 150)
        fake.on_act = lambda *_: fake.states.update({DB2: "start failed"})
        with pytest.raises(HostError, match=rf"after the restart of {DB2}: .*start failed.*next 'up' goes on"):
            converge(limited)
        assert restarts(limited) == [DB2]
        fake.on_act = lambda *_: None
        fake.states[DB2] = "streaming"
        converge(limited)
        assert restarts(limited) == [DB2, DB1]
        assert len(fake.patches) == 1

    def test_without_health_nothing_is_sent_and_nobody_is_restarted(self, limited: World) -> None:
        limited.patroni.sync = None
        declare(limited, 150, log_lock_waits="off")
        with pytest.raises(HostError, match=r"max_connections needs: there is no synchronous standby; nothing was"):
            converge(limited)
        assert limited.patroni.patches == []
        assert restarts(limited) == []

    def test_a_value_that_keeps_the_standby_down_can_be_taken_back(self, limited: World) -> None:
        """The leader waits for the bad value; what corrects it must not need the health that it took away."""
        fake = limited.patroni
        declare(limited, 900)
        fake.answers[DB2, "/restart"] = (503, "restart failed")
        with pytest.raises(
            HostError, match=rf"{DB2} was not restarted: Patroni answered with status 503: restart fa"
        ):
            converge(limited)
        fake.sync, fake.states[DB2] = None, "start failed"
        limited.systems[WITNESS].on_sleep = lambda: fake.states.update({DB2: "streaming"})

        def heals() -> None:
            if not fake.pending:
                fake.sync, fake.states[DB2] = DB2, "streaming"

        limited.systems[WITNESS].on_sleep = heals
        declare(limited, 100)
        converge(limited)
        assert fake.pending == {}
        assert restarts(limited) == [DB2]

    def test_a_pause_in_between_stops_before_the_next_restart(self, limited: World) -> None:
        declare(limited, 150)
        limited.patroni.on_act = lambda *_: setattr(limited.patroni, "paused", True)
        with pytest.raises(HostError, match=r"the cluster is paused.*next 'up' goes on from there"):
            converge(limited)
        assert restarts(limited) == [DB2]

    def test_nobody_is_restarted_while_etcd_is_not_read(self, limited: World) -> None:
        limited.patroni.pending = {DB1: {}, DB2: {}}
        limited.patroni.loops = False
        with pytest.raises(HostError, match=r"until every node reads etcd: waiting for"):
            converge(limited)
        assert restarts(limited) == []

    def test_a_node_that_waits_for_ever_is_told(self, running: World) -> None:
        stuck = {"some_extension.size": {"old_value": "0", "new_value": "1MB"}}
        running.patroni.pending = {DB2: stuck}
        running.patroni.answers[DB2, "/restart"] = (200, "restarted successfully")
        with pytest.raises(
            HostError, match=rf"{DB2} was restarted 3 times and still waits.*some_extension.size 0 => "
        ):
            converge(running)

    def test_a_role_that_changed_meanwhile_is_looked_up_again(self, limited: World) -> None:
        fake = limited.patroni
        declare(limited, 150)

        def failed_over(name: str, path: str) -> None:
            if len(fake.acts) == 1:
                fake.leader, fake.sync = DB2, DB1
                fake.states = {DB1: "streaming", DB2: "running"}
            del name, path

        fake.on_act = failed_over
        converge(limited)
        assert restarts(limited) == [DB2, DB1, DB2]
        assert fake.pending == {}
