"""A member without its data comes in again as a learner, and only while nobody else's vote is in doubt."""

from __future__ import annotations

import time

import pytest

from hostkit import etcd_birth, etcd_plan, etcd_rejoin
from hostkit.errors import HostError
from tests.unit.etcd.etcd_fake_cluster import FakeCluster
from tests.unit.etcd.etcd_fakes import ADDRESSES, BIRTH, CONFIG, DATA, REJOIN, REJOIN_CONFIG, HostRoot
from tests.unit.etcd.test_etcd_birth import form, refused

DB1, DB2, WITNESS = ADDRESSES
CHANGES = ("/v3/cluster/member/remove", "/v3/cluster/member/add", "/v3/cluster/member/promote")


def changes(cluster: FakeCluster) -> list[str]:
    """Return the changes of members that were asked for, one after another."""
    return [call.rpartition("/")[2] for call in cluster.calls if call in CHANGES]


def voters(cluster: FakeCluster) -> dict[str, int]:
    """Return the members that vote, and their ids."""
    found = [m for m in cluster.list if not m.get("isLearner") and m.get("clientURLs")]
    return {str(m["name"]): int(str(m["id"])) for m in found}


class TestTakenIn:
    @pytest.mark.parametrize("lost", [DB1, DB2, WITNESS])
    def test_a_member_that_lost_its_data_is_a_new_voter_and_the_others_are_the_same(
        self, hosts: dict[str, HostRoot], running: FakeCluster, lost: str
    ) -> None:
        before = voters(running)
        running.leader = next(h for h in hosts if h != lost)
        running.lose(lost)
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        after = voters(running)
        assert set(after) == set(hosts)
        assert {h for h in hosts if after[h] != before[h]} == {lost}
        assert set(changes(running)) == {"remove", "add", "promote"}
        assert [h for h in hosts if hosts[h].system.started] == [lost]
        assert not hosts[lost].exists(REJOIN)

    def test_with_authentication_on_roots_password_is_used(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        form(*hosts.values())
        assert running.auth
        running.lose(DB2)
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert DB2 in voters(running)

    def test_a_host_that_comes_a_little_later_is_waited_for(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.lose(DB1)
        assert form(*hosts.values(), delays={DB1: 0.3}) == dict.fromkeys(hosts, 0)
        assert DB1 in voters(running)

    def test_a_second_run_changes_no_member(self, hosts: dict[str, HostRoot], running: FakeCluster) -> None:
        running.lose(DB1)
        form(*hosts.values())
        running.calls.clear()
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert changes(running) == []

    def test_an_old_decision_to_be_born_does_not_count(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.lose(DB1)
        etcd_birth.decide(hosts[DB1].ctx, etcd_plan.required(hosts[DB1].ctx))
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert not hosts[DB1].exists(BIRTH)
        assert set(changes(running)) == {"remove", "add", "promote"}


class TestStart:
    def test_it_is_told_to_join_those_who_are_members_now(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        seen: list[str] = []
        running.lose(DB1)
        hosts[DB1].write(f"{DATA}/member/snap/db", "left over")

        def start() -> None:
            seen.extend((hosts[DB1].root / path[1:]).read_text() for path in (REJOIN, REJOIN_CONFIG))
            running.start(DB1)

        hosts[DB1].system.on_start = start
        assert form(*hosts.values())[DB1] == 0
        told, config = seen
        assert told == f"KEADB_ETCD_CONFIG={REJOIN_CONFIG}\n"
        lines = config.splitlines()
        assert "initial-cluster-state: existing" in lines
        (members,) = [line.removeprefix("initial-cluster: ") for line in lines if "=" in line]
        assert sorted(members.split(",")) == sorted(f"{n}={running.url(n)}" for n in hosts)
        assert "heartbeat: 1" in lines
        assert "initial-cluster-state: new" in (hosts[DB1].root / CONFIG[1:]).read_text()
        assert (hosts[DB1].root / f"{DATA[1:]}.lost-1/snap/db").read_text() == "left over"

    def test_one_that_cannot_get_as_far_as_its_first_write_is_stopped_and_comes_in_again(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.lose(DB1)
        hosts[DB1].system.active = "activating"
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert ["systemctl", "stop", "keadb-etcd.service"] in hosts[DB1].system.commands
        assert DB1 in voters(running)


class TestRefused:
    def test_while_a_peer_cannot_be_reached_no_member_is_changed(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.lose(DB1)
        running.stop(DB2)
        before = list(running.list)
        message = refused(form(hosts[DB1], hosts[WITNESS]), DB1)
        assert "its data is lost" in message
        assert f"{DB2} (127.0.30.11:" in message
        assert running.list == before
        assert changes(running) == []
        assert not hosts[DB1].system.started

    def test_the_reason_comes_soon(self, hosts: dict[str, HostRoot], running: FakeCluster) -> None:
        running.lose(DB1)
        running.stop(DB2)
        before = time.monotonic()
        refused(form(hosts[DB1]), DB1)
        assert time.monotonic() - before < 3, "birth would wait longer"

    def test_two_of_three_that_lost_their_data_are_for_people(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.lose(DB1)
        running.lose(DB2)
        for host in hosts.values():
            host.set_plan(health_seconds=0.5)
        outcome = form(*hosts.values())
        assert all(isinstance(o, HostError) for o in outcome.values())
        assert changes(running) == []
        assert not any(h.system.started for h in hosts.values())

    def test_the_host_with_the_password_does_not_take_itself_in_beside_an_unhealthy_one(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.lose(WITNESS)
        running.alarms.append("NOSPACE")
        message = refused(form(hosts[WITNESS]), WITNESS)
        assert f"{DB1} is not healthy" in message
        assert "No member was removed or added" in message
        assert changes(running) == []

    def test_beside_a_stranger_nobody_is_taken_in(self, hosts: dict[str, HostRoot], running: FakeCluster) -> None:
        running.lose(DB1)
        running.list.append({"id": 7, "name": "stranger", "peerURLs": ["https://127.0.30.99:1"], "isLearner": True})
        message = refused(form(*hosts.values()), WITNESS)
        assert "stranger is a member but not in the site file" in message
        assert changes(running) == []

    def test_a_member_that_is_only_stopped_keeps_its_place(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.stop(DB1)
        assert form(hosts[WITNESS]) == {WITNESS: 0}
        assert changes(running) == []

    def test_one_of_another_plan_is_not_served(self, hosts: dict[str, HostRoot], running: FakeCluster) -> None:
        running.lose(DB1)
        hosts[DB1].set_plan(cluster="another")
        outcome = form(hosts[DB1], hosts[WITNESS])
        assert "was not taken in again" in refused(outcome, DB1)
        assert changes(running) == []

    def test_nobody_serves_a_healthy_member(self, hosts: dict[str, HostRoot], running: FakeCluster) -> None:
        plan = etcd_plan.required(hosts[WITNESS].ctx)
        with pytest.raises(HostError, match=f"{DB1} is healthy"):
            etcd_rejoin.take_in(hosts[WITNESS].ctx, plan, plan.members[0])
        assert changes(running) == []


class TestCut:
    def test_after_the_removal_the_next_run_adds(self, hosts: dict[str, HostRoot], running: FakeCluster) -> None:
        running.lose(DB1)
        running.list.remove(running.entry(DB1))
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert changes(running).count("remove") == 0
        assert DB1 in voters(running)

    @pytest.mark.parametrize("lost", [DB1, WITNESS])
    def test_after_the_addition_it_just_joins(
        self, hosts: dict[str, HostRoot], running: FakeCluster, lost: str
    ) -> None:
        running.leader = DB2
        running.lose(lost)
        running.entry(lost).update(id=300, name="", isLearner=True)
        del running.entry(lost)["clientURLs"]
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert set(changes(running)) == {"promote"}
        assert voters(running)[lost] == 300

    @pytest.mark.parametrize("learner", [DB1, WITNESS])
    def test_after_its_start_it_is_promoted(
        self, hosts: dict[str, HostRoot], running: FakeCluster, learner: str
    ) -> None:
        running.leader = DB2
        running.entry(learner)["isLearner"] = True
        hosts[learner].write(REJOIN, "KEADB_ETCD_CONFIG=x\n")
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert learner in voters(running)
        assert changes(running) == ["promote"]

    def test_a_learner_that_lost_its_data_too_is_removed_and_added(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        running.leader = DB2
        running.entry(DB1)["isLearner"] = True
        running.lose(DB1)
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert DB1 in voters(running)
        assert set(changes(running)) == {"remove", "add", "promote"}
