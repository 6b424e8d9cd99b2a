"""Bringing settings into force: only differences, refusals before any change, clear ends."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from components import postgres_cluster as pg
from hostkit import patroni_converge, patroni_probe
from hostkit.errors import HostError, Refused
from hostkit.patroni_converge import difference
from hostkit.patroni_parameters import needs_restart
from keadb.site import load_site
from tests.unit.core.samples import ha, put
from tests.unit.patroni.patroni_fakes import DB1, DB2, ETCD_PASSWORD, REST_PASSWORD, WITNESS, World


def converge(world: World) -> int:
    """Run the verb on the control host."""
    return patroni_converge.main(world.ctx(WITNESS), [])


def declare(world: World, path: str, value: Any) -> None:
    """Change the site file and place the new plan."""
    world.place(pg.patroni_settings_bundle(load_site(put(ha(), path, value), source="test")))


class TestDifference:
    def test_equal_settings_differ_in_nothing(self) -> None:
        assert difference({"a": 1, "p": {"x": "on"}}, {"a": 1, "p": {"x": "on"}}) == {}

    def test_values_are_compared_as_patroni_does(self) -> None:
        assert difference({"a": "10"}, {"a": 10}) == {}
        assert difference({"a": False}, {"a": True}) == {"a": True}

    def test_what_went_away_becomes_null_at_every_depth(self) -> None:
        live = {"gone": 1, "p": {"x": 1, "old": 2}}
        assert difference(live, {"p": {"x": 1}}) == {"gone": None, "p": {"old": None}}

    def test_only_what_differs_is_sent(self) -> None:
        live = {"ttl": 30, "p": {"parameters": {"a": 1, "b": 2}}}
        assert difference(live, {"ttl": 30, "p": {"parameters": {"a": 1, "b": 3}}}) == {"p": {"parameters": {"b": 3}}}


class TestConverge:
    def test_declared_settings_in_force_send_nothing(
        self, running: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert converge(running) == 0
        assert running.patroni.patches == []
        assert json.loads(capsys.readouterr().out) == {"changed": False, "settings": [], "restarted": []}

    def test_a_changed_setting_is_sent_alone_and_only_once(
        self, running: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        declare(running, "patroni/loop_wait", 4)
        converge(running)
        assert running.patroni.patches == [{"loop_wait": 4}]
        said = json.loads(capsys.readouterr().out)
        assert said == {"changed": True, "settings": ["loop_wait: 3 => 4"], "restarted": []}
        converge(running)
        assert len(running.patroni.patches) == 1

    def test_a_setting_made_by_hand_is_taken_away_with_null(self, running: World) -> None:
        running.patroni.config["maximum_lag_on_syncnode"] = 5
        running.patroni.config["postgresql"]["parameters"]["deadlock_timeout"] = "3s"
        converge(running)
        parameters = {"parameters": {"deadlock_timeout": None}}
        assert running.patroni.patches == [{"maximum_lag_on_syncnode": None, "postgresql": parameters}]

    def test_a_resumed_cluster_keeps_its_pause_key(self, running: World) -> None:
        running.patroni.config["pause"] = False
        converge(running)
        assert running.patroni.patches == []

    def test_a_paused_cluster_is_refused_and_says_what_waits(self, running: World) -> None:
        running.patroni.paused = True
        declare(running, "patroni/loop_wait", 4)
        with pytest.raises(Refused, match=r"is paused.*loop_wait.*keadb resume"):
            converge(running)
        assert running.patroni.patches == []

    def test_no_sync_standby_ends_at_the_time_limit_with_the_reason(self, running: World) -> None:
        running.patroni.sync = None
        with pytest.raises(
            HostError, match=r"after 300 s of waiting until the cluster is healthy.*no synchronous standby"
        ):
            converge(running)

    def test_no_leader_ends_at_the_time_limit_before_anything_is_sent(self, running: World) -> None:
        running.patroni.leader = None
        declare(running, "patroni/loop_wait", 4)
        with pytest.raises(HostError, match=r"after 300 s of waiting until the cluster has a leader: .*no leader"):
            converge(running)
        assert running.patroni.patches == []

    def test_a_silent_node_is_named(self, running: World) -> None:
        running.patroni.stop(DB2)
        with pytest.raises(HostError, match=f"Patroni on {DB2} .*is unreachable"):
            converge(running)

    def test_settings_that_do_not_arrive_are_told(self, running: World) -> None:
        running.patroni.deaf_to = {"ttl"}
        declare(running, "patroni/ttl", 25)
        with pytest.raises(HostError, match="etcd still differs in: ttl: 20 => 25"):
            converge(running)

    def test_nodes_that_never_begin_another_loop_are_named(self, running: World) -> None:
        running.patroni.loops = False
        declare(running, "patroni/loop_wait", 4)
        with pytest.raises(HostError, match=f"taken over the settings: waiting for {DB1}, {DB2}"):
            converge(running)

    def test_a_wrong_password_is_a_clear_error_without_it(self, running: World) -> None:
        declare(running, "patroni/loop_wait", 4)
        store = running.folder / WITNESS / "var/lib/keadb/secrets.json"
        store.write_text(json.dumps({"patroni_rest_password": "another-one"}))
        with pytest.raises(HostError, match=f"Patroni on {DB1} answered PATCH /config with status 401") as caught:
            converge(running)
        assert "another-one" not in str(caught.value)

    def test_the_password_is_only_sent_with_a_change(self, running: World) -> None:
        store = running.folder / WITNESS / "var/lib/keadb/secrets.json"
        store.write_text(json.dumps({"etcd_patroni_a_password": ETCD_PASSWORD}))
        assert converge(running) == 0
        declare(running, "patroni/loop_wait", 4)
        with pytest.raises(HostError, match="patroni_rest_password") as caught:
            converge(running)
        assert REST_PASSWORD not in str(caught.value)


class TestNeedsRestart:
    @pytest.mark.parametrize("name", ["max_connections", "Shared_Buffers", "wal_level", "ssl_library", "work_mem"])
    def test_only_postmaster_parameters(self, name: str) -> None:
        assert needs_restart(name, "1", "2") == (name in {"max_connections", "Shared_Buffers", "wal_level"})

    def test_naming_a_default_is_no_change(self) -> None:
        assert not needs_restart("max_worker_processes", None, 8)
        assert not needs_restart("max_worker_processes", "8", None)
        assert needs_restart("max_worker_processes", None, 9)


class TestProbe:
    def state(self, world: World) -> dict[str, Any]:
        """Return what the status screen gets on a database host."""
        return patroni_probe.state(world.ctx(DB1))

    def test_a_healthy_cluster(self, running: World) -> None:
        assert self.state(running) == {
            "cluster": "lab",
            "declared": 2,
            "leader": DB1,
            "paused": False,
            "synchronous": True,
            "system_identifier": "7300000000000000001",
            "timeline": 1,
            "problems": [],
            "members": [
                {"name": DB1, "role": "leader", "state": "running", "timeline": 1, "lag": 0, "pending_restart": []},
                {
                    "name": DB2,
                    "role": "sync_standby",
                    "state": "streaming",
                    "timeline": 1,
                    "lag": 0,
                    "pending_restart": [],
                },
            ],
        }
        assert patroni_probe.main(running.ctx(DB1), []) == 0

    def test_every_difference_is_told_at_once(self, running: World) -> None:
        fake = running.patroni
        fake.sync, fake.paused = None, True
        fake.states[DB2] = "starting"
        fake.pending = {DB1: {"max_connections": {}}}
        fake.identifiers[DB2] = "7300000000000000002"
        fake.extra = [{"name": "stranger", "role": "replica", "state": "streaming", "lag": "unknown"}]
        found = self.state(running)
        assert found["problems"] == [
            f"{DB1} waits for a restart of PostgreSQL (max_connections)",
            f"{DB2} is replica, starting",
            "stranger is a member but not in the site file",
            "there is no synchronous standby",
            "the nodes hold different clusters (7300000000000000001, 7300000000000000002)",
            "the cluster is paused",
        ]
        assert found["members"][2]["lag"] is None
        with pytest.raises(HostError, match=r"cluster lab: .*waits for a restart.*is paused"):
            patroni_probe.main(running.ctx(WITNESS), [])

    def test_nobody_answers(self, world: World) -> None:
        found = self.state(world)
        assert len(found["problems"]) == 2
        assert found["leader"] is None

    def test_a_host_without_a_plan(self, world: World) -> None:
        for path in (world.folder / DB1 / "etc/keadb/cluster").iterdir():
            path.unlink()
        assert self.state(world) == {}
        with pytest.raises(HostError, match="no plan"):
            patroni_probe.main(world.ctx(DB1), [])

    def test_a_client_of_another_authority_is_turned_away(self, running: World) -> None:
        cert, key = type(running.authority)("another CA").issue("x", "127.0.0.1")
        folder = running.folder / DB1 / "var/lib/keadb/tls"
        (folder / "client.crt").write_bytes(cert)
        (folder / "client.key").write_bytes(key)
        found = copy.deepcopy(self.state(running))
        assert found["members"] == []
        assert all("is unreachable" in problem for problem in found["problems"])
