"""The probe compares what runs with what is declared, and fails on every difference by name."""

from __future__ import annotations

import json
import socket
import time

import pytest

from hostkit import etcd_probe
from hostkit.errors import BadInput, HostError
from tests.unit.etcd.etcd_fake_cluster import FakeCluster
from tests.unit.etcd.etcd_fakes import ADDRESSES, HostRoot

DB1, DB2, WITNESS = ADDRESSES


def problems(host: HostRoot) -> list[str]:
    """Return what the probe would complain about."""
    found: list[str] = etcd_probe.state(host.ctx)["problems"]
    return found


def test_all_is_as_declared(
    hosts: dict[str, HostRoot], running: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert running.quorum
    assert etcd_probe.main(hosts[WITNESS].ctx, []) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cluster"], found["declared"], found["leader"], found["problems"]) == ("site", 3, DB1, [])
    assert [m["name"] for m in found["members"]] == list(ADDRESSES)
    assert found["members"][0] == {
        "name": DB1,
        "address": ADDRESSES[DB1],
        "id": "64",
        "started": True,
        "learner": False,
        "healthy": True,
        "db_size": 20480,
        "db_size_in_use": 16384,
        "alarms": [],
    }


def test_every_problem_fails_the_probe_by_name(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.list.append({"id": 7, "name": "stranger", "peerURLs": ["https://127.0.30.99:1"], "clientURLs": ["x"]})
    running.stop(DB2)
    with pytest.raises(HostError) as caught:
        etcd_probe.main(hosts[WITNESS].ctx, [])
    assert "stranger (7, https://127.0.30.99:1) is a member but not in the site file" in str(caught.value)
    assert f"{DB2} (127.0.30.11:" in str(caught.value)


def test_a_stranger_that_never_started_is_a_problem(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.list.append({"id": 7, "name": "", "peerURLs": ["https://127.0.30.99:1"]})
    (problem,) = problems(hosts[DB1])
    assert "a member that never started (7, https://127.0.30.99:1) is a member but not in the site file" in problem
    assert "etcdctl member remove 7" in problem


def test_a_missing_member_is_a_problem(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.list.remove(running.entry(WITNESS))
    running.stop(WITNESS)
    assert f"{WITNESS} is not a member" in problems(hosts[DB1])


def test_a_member_that_has_not_started_is_a_problem(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    del running.entry(WITNESS)["clientURLs"]
    assert problems(hosts[DB1]) == [f"{WITNESS} is a member that has not started yet"]


def test_a_learner_is_a_problem(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.entry(WITNESS)["isLearner"] = True
    assert problems(hosts[DB1]) == [f"{WITNESS} is a learner and has no vote yet"]


def test_a_member_of_another_name_is_a_problem(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    hosts[DB1].set_plan(
        members=[
            {"name": n, "address": a} if n != WITNESS else {"name": "renamed", "address": a}
            for n, a in ADDRESSES.items()
        ]
    )
    assert running.quorum
    assert problems(hosts[DB1]) == [f"renamed calls itself '{WITNESS}'"]


@pytest.mark.parametrize("alarm", ["NOSPACE", "CORRUPT"])
def test_an_alarm_is_a_problem(hosts: dict[str, HostRoot], running: FakeCluster, alarm: str) -> None:
    running.alarms = [alarm]
    assert f"{DB2} raises the alarm {alarm}" in problems(hosts[DB1])


def test_without_a_quorum_there_is_no_leader_and_still_a_view(
    hosts: dict[str, HostRoot], running: FakeCluster
) -> None:
    running.stop(DB2)
    running.stop(WITNESS)
    found = etcd_probe.state(hosts[DB1].ctx)
    assert "there is no leader" in found["problems"]
    assert found["leader"] is None
    assert len(found["members"]) == 3
    assert not any(m["healthy"] for m in found["members"])


def test_the_member_list_comes_from_a_peer_when_the_own_member_is_down(
    hosts: dict[str, HostRoot], running: FakeCluster
) -> None:
    running.stop(DB1)
    running.leader = DB2
    found = etcd_probe.state(hosts[DB1].ctx)
    assert len(found["members"]) == 3
    assert found["leader"] == DB2


def test_a_view_of_a_cluster_that_is_all_down(hosts: dict[str, HostRoot]) -> None:
    found = etcd_probe.state(hosts[DB1].ctx)
    assert found["members"] == []
    assert found["problems"][0].startswith("no member gave the member list")


def test_a_host_that_does_not_answer_costs_its_time_once(
    hosts: dict[str, HostRoot], running: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_probe, "SECONDS", 0.3)
    running.stop(WITNESS)
    plan = hosts[DB1].plan
    with (
        socket.create_server((ADDRESSES[WITNESS], plan["client_port"])),
        socket.create_server((ADDRESSES[WITNESS], plan["peer_port"])),
    ):
        before = time.monotonic()
        assert f"{WITNESS} (127.0.30.12:" in problems(hosts[DB1])[0]
        assert time.monotonic() - before < 1.0


def test_members_that_name_different_leaders_are_a_problem(
    hosts: dict[str, HostRoot], running: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FakeCluster._v3

    def v3(self: FakeCluster, name: str, path: str, body: object, token: str | None) -> dict[str, object]:
        found = original(self, name, path, body, token)
        return {**found, "leader": "101"} if name == DB2 else found

    monkeypatch.setattr(FakeCluster, "_v3", v3)
    assert running.quorum
    assert problems(hosts[DB1]) == ["members name different leaders"]


def test_a_host_without_etcd_has_an_empty_view_and_no_probe(hosts: dict[str, HostRoot]) -> None:
    hosts[DB1].ctx.path("/etc/keadb/cluster/etcd.json").unlink()
    assert etcd_probe.state(hosts[DB1].ctx) == {}
    with pytest.raises(BadInput, match="carries no etcd"):
        etcd_probe.main(hosts[DB1].ctx, [])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_plan_that_is_none_is_bad_input(hosts: dict[str, HostRoot], text: str) -> None:
    hosts[DB1].write("/etc/keadb/cluster/etcd.json", text)
    with pytest.raises(BadInput, match="is not a plan of format 1"):
        etcd_probe.state(hosts[DB1].ctx)
