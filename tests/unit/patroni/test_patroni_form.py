"""Starting Patroni: who may be born, what a host with data does, and clear ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostkit import patroni_form, patroni_seed
from hostkit.errors import HostError, Refused
from tests.unit.patroni.patroni_fakes import DB1, DB2, ETCD_PASSWORD, REST_PASSWORD, WITNESS, World

PREFIX = "/service/lab/"
DECLARED = f"{PREFIX}keadb-form/"


def form(world: World, host: str) -> int:
    """Run the verb on a database host."""
    return patroni_form.main(world.ctx(host), [])


def seed(world: World) -> dict[str, bool]:
    """Run the verb on the control host and return what it printed."""
    assert patroni_seed.main(world.ctx(WITNESS), []) == 0
    return {"seeded": PREFIX + "config" in world.etcd.keys}


def with_data(world: World, host: str) -> Path:
    """Put a database cluster on a host."""
    folder = world.folder / host / "var/lib/postgresql/15/kea"
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text("15\n")
    return folder


def lives(world: World, host: str) -> None:
    """Let the host's Patroni run as soon as its unit is started."""
    world.systems[host].on_start = lambda: world.patroni.start(host)


class TestSeed:
    def test_settings_are_put_into_etcd_before_the_birth(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seed(world)
        assert json.loads(capsys.readouterr().out) == {"changed": True}
        plan = json.loads((world.folder / WITNESS / "etc/keadb/cluster/patroni.json").read_text())
        assert json.loads(world.etcd.keys[PREFIX + "config"]) == plan["config"]
        seed(world)
        assert json.loads(capsys.readouterr().out) == {"changed": False}

    def test_what_a_cut_birth_left_is_replaced(self, world: World) -> None:
        world.etcd.keys[PREFIX + "config"] = '{"ttl":99}'
        seed(world)
        assert json.loads(world.etcd.keys[PREFIX + "config"])["ttl"] == 20

    def test_a_birth_that_was_only_begun_still_gets_the_newer_settings(self, world: World) -> None:
        world.etcd.keys |= {PREFIX + "config": '{"ttl":99}', PREFIX + "initialize": ""}
        seed(world)
        assert json.loads(world.etcd.keys[PREFIX + "config"])["ttl"] == 20

    def test_a_cluster_that_was_born_is_left_alone(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.etcd.keys |= {PREFIX + "config": '{"ttl":99}', PREFIX + "initialize": "7300000000000000001"}
        seed(world)
        assert json.loads(capsys.readouterr().out) == {"changed": False}
        assert world.etcd.keys[PREFIX + "config"] == '{"ttl":99}'

    def test_a_wrong_password_is_a_clear_error_without_it(self, world: World) -> None:
        store = world.folder / WITNESS / "var/lib/keadb/secrets.json"
        store.write_text(json.dumps({"etcd_patroni_a_password": "another-one"}))
        with pytest.raises(HostError, match=f"{WITNESS} does not take the password of its user patroni") as caught:
            seed(world)
        assert "another-one" not in str(caught.value)
        assert ETCD_PASSWORD not in str(caught.value)


class TestBirth:
    def test_the_first_host_starts_when_all_have_said_that_they_are_blank(self, world: World) -> None:
        seed(world)
        lives(world, DB1)
        moments = iter(range(100))

        def other_speaks_late() -> None:
            if next(moments) == 2:
                assert "start" not in world.systems[DB1].verbs
                world.etcd.keys[DECLARED + DB2] = "blank"

        world.systems[DB1].on_sleep = other_speaks_late
        assert form(world, DB1) == 0
        assert world.systems[DB1].verbs == ["reset-failed", "start"]
        assert world.etcd.keys[DECLARED + DB1] == "blank"
        assert world.etcd.leases[DECLARED + DB1] == "77"

    def test_a_silent_host_prevents_the_birth(self, world: World) -> None:
        seed(world)
        with pytest.raises(HostError, match=f"not born within 180 s: {DB2} has not said yet.*nothing was started"):
            form(world, DB1)
        assert world.systems[DB1].verbs == []

    def test_a_host_with_data_prevents_the_birth_of_another_cluster(self, world: World) -> None:
        seed(world)
        world.etcd.keys[DECLARED + DB2] = "data"
        with pytest.raises(HostError, match=f"{DB2} has a database cluster and must lead first"):
            form(world, DB1)
        assert world.systems[DB1].verbs == []

    def test_without_settings_nothing_is_born(self, world: World) -> None:
        world.etcd.keys[DECLARED + DB2] = "blank"
        with pytest.raises(Refused, match="no settings for cluster lab: the bundle patroni-settings"):
            form(world, DB1)
        assert world.systems[DB1].verbs == []

    def test_the_second_host_says_that_it_is_blank_and_waits_for_the_birth(self, world: World) -> None:
        seed(world)
        lives(world, DB2)
        moments = iter(range(100))

        def born_later() -> None:
            moment = next(moments)
            if moment == 1:
                assert world.etcd.keys[DECLARED + DB2] == "blank"
                world.etcd.keys[PREFIX + "initialize"] = ""  # initdb runs
            if moment == 3:
                assert world.systems[DB2].verbs == []
                world.etcd.keys[PREFIX + "initialize"] = "7300000000000000001"

        world.systems[DB2].on_sleep = born_later
        assert form(world, DB2) == 0
        assert world.systems[DB2].verbs == ["reset-failed", "start"]

    def test_a_blank_host_joins_a_cluster_that_was_born(self, world: World) -> None:
        world.etcd.keys[PREFIX + "initialize"] = "7300000000000000001"
        lives(world, DB1)
        assert form(world, DB1) == 0
        assert DECLARED + DB1 not in world.etcd.keys

    def test_a_host_with_data_says_so_and_starts_at_once(self, world: World) -> None:
        with_data(world, DB2)
        lives(world, DB2)
        assert form(world, DB2) == 0
        assert world.etcd.keys[DECLARED + DB2] == "data"

    def test_etcd_without_a_leader_is_waited_for(self, world: World) -> None:
        seed(world)
        world.etcd.keys[DECLARED + DB2] = "blank"
        lives(world, DB1)
        world.etcd.down = True
        world.systems[DB1].on_sleep = lambda: setattr(world.etcd, "down", False)
        with pytest.raises(HostError, match="no etcd member can be used"):
            patroni_seed.main(world.ctx(WITNESS), [])
        assert form(world, DB1) == 0


class TestCutBirth:
    """The power went while the first host was initialised: etcd knows that it never came to its end."""

    def test_it_is_begun_again_and_what_it_left_is_kept_aside(self, world: World) -> None:
        seed(world)
        folder = with_data(world, DB1)
        (folder.parent / "kea.cut-birth-1").mkdir()
        world.etcd.keys |= {PREFIX + "initialize": "", DECLARED + DB2: "blank"}
        lives(world, DB1)
        assert form(world, DB1) == 0
        assert not folder.exists()
        assert (folder.parent / "kea.cut-birth-2/PG_VERSION").exists()
        assert PREFIX + "initialize" not in world.etcd.keys
        assert world.systems[DB1].verbs == ["reset-failed", "start"]

    def test_nothing_is_moved_before_all_have_said_that_they_are_blank(self, world: World) -> None:
        seed(world)
        folder = with_data(world, DB1)
        world.etcd.keys[PREFIX + "initialize"] = ""
        with pytest.raises(HostError, match=f"{DB2} has not said yet"):
            form(world, DB1)
        assert (folder / "PG_VERSION").exists()
        assert world.etcd.keys[PREFIX + "initialize"] == ""

    def test_data_of_a_born_cluster_is_never_moved(self, world: World) -> None:
        folder = with_data(world, DB1)
        world.etcd.keys |= {PREFIX + "initialize": "7300000000000000001", DECLARED + DB2: "blank"}
        lives(world, DB1)
        assert form(world, DB1) == 0
        assert (folder / "PG_VERSION").exists()

    def test_data_without_a_begun_birth_is_never_moved(self, world: World) -> None:
        """Etcd was lost, the data was not."""
        folder = with_data(world, DB1)
        world.etcd.keys[DECLARED + DB2] = "blank"
        lives(world, DB1)
        assert form(world, DB1) == 0
        assert (folder / "PG_VERSION").exists()
        assert world.etcd.keys[DECLARED + DB1] == "data"

    def test_a_birth_that_hangs_is_stopped_for_the_next_run(self, running: World) -> None:
        running.systems[DB1].active = "active"
        running.patroni.leader = None
        running.patroni.states[DB1] = "starting"
        running.etcd.keys[PREFIX + "initialize"] = ""
        with pytest.raises(HostError, match=r"the cluster was not born, patroni.service was stopped"):
            form(running, DB1)
        assert running.systems[DB1].verbs == ["stop"]

    def test_a_node_of_a_born_cluster_is_never_stopped(self, running: World) -> None:
        running.systems[DB1].active = "active"
        running.patroni.leader = None
        running.patroni.states[DB1] = "starting"
        running.etcd.keys[PREFIX + "initialize"] = "7300000000000000001"
        with pytest.raises(HostError, match="no progress"):
            form(running, DB1)
        assert running.systems[DB1].verbs == []


class TestRunning:
    def test_a_node_may_start_by_itself_only_after_it_ran(self, world: World) -> None:
        world.etcd.keys[PREFIX + "initialize"] = "7300000000000000001"
        marks = [world.folder / DB2 / path for path in ("run/keadb/patroni-start", "var/lib/keadb/patroni-member")]
        seen: list[list[bool]] = []

        def starts() -> None:
            seen.append([mark.exists() for mark in marks])
            world.patroni.start(DB2)

        world.systems[DB2].on_start = starts
        assert form(world, DB2) == 0
        assert seen == [[True, False]]
        assert all(mark.exists() for mark in marks)

    def test_a_running_node_is_left_alone(self, running: World, capsys: pytest.CaptureFixture[str]) -> None:
        running.systems[DB2].active = "active"
        assert form(running, DB2) == 0
        assert running.systems[DB2].verbs == []
        assert json.loads(capsys.readouterr().out) == {"changed": False, "role": "replica", "timeline": 1}

    def test_a_copying_standby_is_waited_for_and_its_progress_told(
        self, running: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        running.systems[DB2].active = "active"
        running.patroni.states[DB2] = "creating replica"
        moments = iter(range(1000))

        def copied() -> None:
            if next(moments) == 40:  # 400 s: much longer than a node may stall
                running.patroni.states[DB2] = "streaming"

        running.systems[DB2].on_sleep = copied
        assert form(running, DB2) == 0
        told = capsys.readouterr().err
        assert told.count("creating replica") == 1
        assert "running, streaming" in told

    def test_a_node_that_stalls_is_told_with_the_journal(self, running: World) -> None:
        running.systems[DB2].active = "active"
        running.patroni.states[DB2] = "starting"
        told = rf"replica, starting: no progress for 120 s.*'keadb reinit {DB2}'(?s:.*)the last words"
        with pytest.raises(HostError, match=told) as caught:
            form(running, DB2)
        assert REST_PASSWORD not in str(caught.value)

    def test_a_crash_loop_ends_the_wait_early(self, world: World) -> None:
        system = world.systems[DB2]
        system.active = "active"

        def again() -> None:
            system.restarts += 1

        system.on_sleep = again
        with pytest.raises(HostError, match=r"does not answer yet: patroni.service has been restarted 5 times"):
            form(world, DB2)
        assert system.clock < 60, "a node may stall for longer"

    def test_restarts_before_what_was_just_placed_do_not_count(self, running: World) -> None:
        system = running.systems[DB2]
        system.active, system.restarts = "active", 40
        running.patroni.states[DB2] = "starting"

        def well() -> None:
            running.patroni.states[DB2] = "streaming"

        system.on_sleep = well
        assert form(running, DB2) == 0
        assert system.verbs == ["reset-failed"]

    def test_a_renewed_certificate_that_patroni_missed_takes_another_reload(self, running: World) -> None:
        system = running.systems[DB2]
        system.active = "active"
        newer, key = running.authority.issue(DB2, "127.0.40.11")
        folder = running.folder / DB2
        (folder / "etc/patroni/tls/postgres.crt").write_bytes(newer)

        def reread() -> None:
            (folder / "key").write_bytes(key)
            running.contexts[DB2].load_cert_chain(folder / "etc/patroni/tls/postgres.crt", folder / "key")

        system.on_reload = reread
        assert form(running, DB2) == 0
        assert system.verbs == ["reload"]

    def test_a_certificate_that_never_comes_into_use_is_told(self, running: World) -> None:
        system = running.systems[DB2]
        system.active = "active"
        newer, _ = running.authority.issue(DB2, "127.0.40.11")
        (running.folder / DB2 / "etc/patroni/tls/postgres.crt").write_bytes(newer)
        with pytest.raises(
            HostError, match=r"does not show the certificate /etc/patroni/tls/postgres.crt, even after"
        ):
            form(running, DB2)
        assert system.verbs == ["reload"]
