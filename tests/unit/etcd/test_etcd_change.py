"""What becomes of running members when the site file declares others, or the same ones elsewhere."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from hostkit import due, etcd_members, etcd_plan, etcd_rejoin, etcd_roll
from hostkit.errors import HostError, Refused
from hostkit.etcd_client import CLIENT_TLS, tls_context
from tests.unit.etcd.etcd_fakes import ADDRESSES, DATA, REJOIN, UNIT
from tests.unit.etcd.test_etcd_birth import form, refused
from tests.unit.etcd.test_etcd_rejoin import changes, voters

if TYPE_CHECKING:
    import ssl

    from tests.unit.etcd.etcd_fake_cluster import FakeCluster
    from tests.unit.etcd.etcd_fakes import HostRoot

DB1, DB2, WITNESS = ADDRESSES
Hosts = dict[str, "HostRoot"]


def declare(hosts: Hosts, *names: str) -> list[HostRoot]:
    """Write a plan with these members to each of them, the last one in charge; return them."""
    members = [{"name": name, "address": ADDRESSES[name]} for name in names]
    for name in names:
        hosts[name].set_plan(members=members, sets_up_auth=name == names[-1], leads=False, health_seconds=30.0)
    return [hosts[name] for name in names]


def only(cluster: FakeCluster, *names: str) -> None:
    """Have a cluster of these members only, formed by their own plan; the first one leads."""
    for name in set(cluster.running) - set(names):
        cluster.stop(name)
    cluster.list = [cluster.entry(name) for name in names]
    cluster.leader = names[0]
    for name in names:
        cluster.start(name)
        cluster.hosts[name].system.active = "active"
    assert set(form(*declare(dict(cluster.hosts), *names)).values()) == {0}
    cluster.calls.clear()


def record(cluster: FakeCluster) -> dict[str, list[str]]:
    """Return what the cluster says was declared."""
    key = base64.b64encode(etcd_members.RECORD.encode()).decode()
    return dict(json.loads(base64.b64decode(cluster.keys[key])))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts join one after the other: on a busy machine that takes its time, and none here waits in vain."""
    monkeypatch.setattr(etcd_rejoin, "ASK_SECONDS", 30.0)


class TestGrowing:
    def test_one_becomes_three_and_is_the_same_member(self, hosts: Hosts, cluster: FakeCluster) -> None:
        only(cluster, DB1)
        before = voters(cluster)
        assert form(*declare(hosts, DB1, DB2, WITNESS)) == dict.fromkeys(hosts, 0)
        after = voters(cluster)
        assert set(after) == set(hosts)
        assert after[DB1] == before[DB1]
        assert changes(cluster) == ["add", "promote"] * 2
        assert not hosts[DB1].system.started
        assert record(cluster) == {name: [cluster.url(name)] for name in hosts}

    def test_a_host_that_comes_back_with_the_data_of_a_removed_member_joins_anew(
        self, hosts: Hosts, cluster: FakeCluster
    ) -> None:
        only(cluster, DB1)
        hosts[DB2].give_data()
        hosts[DB2].write(f"{DATA}/member/snap/db", "old")
        assert form(*declare(hosts, DB1, DB2, WITNESS)) == dict.fromkeys(hosts, 0)
        assert DB2 in voters(cluster)
        assert (hosts[DB2].root / f"{DATA[1:]}.lost-1/snap/db").read_text() == "old"

    def test_data_of_a_member_that_is_one_is_never_put_aside(self, hosts: Hosts, running: FakeCluster) -> None:
        plan = etcd_plan.required(hosts[DB1].ctx)
        assert not etcd_rejoin.removed(hosts[DB1].ctx, plan)
        running.list.remove(running.entry(DB1))
        assert etcd_rejoin.removed(hosts[DB1].ctx, plan)
        hosts[DB1].write(REJOIN, "half way in")
        assert not etcd_rejoin.removed(hosts[DB1].ctx, plan)

    def test_without_a_running_peer_nobody_says_that_it_was_removed(self, hosts: Hosts, cluster: FakeCluster) -> None:
        assert cluster.running == {}
        assert not etcd_rejoin.removed(hosts[DB1].ctx, etcd_plan.required(hosts[DB1].ctx))


class TestShrinking:
    def test_three_become_one_that_leads(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.leader = WITNESS
        running.calls.clear()
        assert form(*declare(hosts, DB1)) == {DB1: 0}
        assert set(voters(running)) == {DB1}
        assert changes(running) == ["remove", "remove"]
        assert running.leader == DB1
        assert record(running) == {DB1: [running.url(DB1)]}

    def test_a_dead_one_goes_first(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.leader = DB2
        running.stop(WITNESS)
        assert form(*declare(hosts, DB1)) == {DB1: 0}
        assert set(voters(running)) == {DB1}

    def test_nobody_goes_while_one_who_stays_is_not_healthy(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.stop(DB2)
        declare(hosts, DB2, DB1)
        message = refused(form(hosts[DB1]), DB1)
        assert f"{WITNESS} is a member of etcd and no longer in the site file" in message
        assert DB2 in message
        assert set(voters(running)) == set(hosts)

    def test_a_host_that_leads_postgresql_does_not_go(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        leader = base64.b64encode(b"/service/site/leader").decode()
        running.keys[leader] = base64.b64encode(DB2.encode()).decode()
        message = refused(form(*declare(hosts, DB1)), DB1)
        assert f"{DB2} leads PostgreSQL" in message
        assert "keadb switchover" in message
        assert set(voters(running)) == set(hosts)

    def test_a_stranger_is_never_removed_and_nobody_else_beside_it(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        stranger = {"id": 7, "name": "stranger", "peerURLs": ["https://127.0.30.99:1"], "isLearner": True}
        running.list.append(stranger)
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert stranger in running.list
        assert "stranger is a member but not in the site file" in refused(form(*declare(hosts, DB1)), DB1)
        assert len(running.list) == 4

    def test_a_cut_between_two_removals_is_gone_on_with(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.list.remove(running.entry(DB2))
        running.calls.clear()
        assert form(*declare(hosts, DB1)) == {DB1: 0}
        assert changes(running) == ["remove"]


class TestReplacing:
    def test_the_new_one_votes_before_the_old_one_goes(self, hosts: Hosts, cluster: FakeCluster) -> None:
        only(cluster, DB1, WITNESS)
        cluster.leader = WITNESS
        assert form(*declare(hosts, DB1, DB2)) == {DB1: 0, DB2: 0}
        assert changes(cluster) == ["add", "promote", "remove"]
        assert set(voters(cluster)) == {DB1, DB2}

    def test_an_old_one_that_is_dead_goes_first(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.leader = DB1
        running.lose(DB2)
        running.calls.clear()
        form(*declare(hosts, DB1, WITNESS))
        assert changes(running) == ["remove"]
        assert set(voters(running)) == {DB1, WITNESS}


class TestMoved:
    def test_etcd_is_told_the_new_address_and_the_member_stays(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        before = voters(running)
        old = "https://127.0.30.99:2380"
        running.entry(DB2)["peerURLs"] = [old]
        self._had(running, DB2, old)
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert running.entry(DB2)["name"] == DB2
        assert voters(running) == before
        assert changes(running) == []
        assert old not in record(running)[DB2]

    def test_an_address_that_was_never_declared_is_no_earlier_one(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.entry(DB2)["peerURLs"] = ["https://127.0.30.99:2380"]
        assert form(hosts[WITNESS]) == {WITNESS: 0}
        assert running.list[1]["peerURLs"] == ["https://127.0.30.99:2380"]

    def test_a_leader_that_moved_is_found_where_it_is_declared(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        old = "https://127.0.30.99:2380"
        running.entry(WITNESS)["peerURLs"] = [old]
        self._had(running, WITNESS, old)
        assert running.leader == WITNESS
        assert form(hosts[WITNESS]) == {WITNESS: 0}
        assert running.entry(WITNESS)["name"] == WITNESS

    def test_two_are_told_one_after_the_other_though_neither_is_reached_before(
        self, hosts: Hosts, running: FakeCluster
    ) -> None:
        form(*hosts.values())
        for number, name in enumerate((DB1, DB2)):
            old = f"https://127.0.30.9{number}:2380"
            running.entry(name)["peerURLs"] = [old]
            self._had(running, name, old)
        assert form(hosts[WITNESS]) == {WITNESS: 0}
        assert [m["peerURLs"] for m in running.list[:2]] == [[running.url(DB1)], [running.url(DB2)]]

    def test_not_while_another_one_is_not_healthy(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        old = "https://127.0.30.99:2380"
        running.entry(DB2)["peerURLs"] = [old]
        self._had(running, DB2, old)
        running.stop(DB1)
        message = refused(form(hosts[WITNESS]), WITNESS)
        assert f"etcd knows {DB2} by an earlier address" in message
        assert DB1 in message
        assert running.list[1]["peerURLs"] == [old]

    @staticmethod
    def _had(cluster: FakeCluster, name: str, url: str) -> None:
        now = record(cluster)
        now[name] = [url]
        key = base64.b64encode(etcd_members.RECORD.encode()).decode()
        cluster.keys[key] = base64.b64encode(json.dumps(now).encode()).decode()

    def test_a_member_that_does_not_listen_there_yet_is_restarted(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.stop(DB2)
        due.add(hosts[DB2].ctx, UNIT, ["/etc/etcd/keadb.yml"])
        hosts[DB2].system.on_restart = lambda: running.start(DB2)
        assert form(hosts[DB2]) == {DB2: 0}
        assert ["systemctl", "restart", "--no-block", UNIT] in hosts[DB2].system.commands
        assert due.due(hosts[DB2].ctx, UNIT) == ()
        assert etcd_roll.unhealthy(etcd_plan.required(hosts[DB1].ctx), _tls(hosts[DB1])) == []

    def test_not_while_its_peers_are_in_trouble(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        running.stop(DB2)
        running.stop(DB1)
        due.add(hosts[DB2].ctx, UNIT, ["/etc/etcd/keadb.yml"])
        message = refused(form(hosts[DB2]), DB2)
        assert DB1 in message
        assert ["systemctl", "restart", "--no-block", UNIT] not in hosts[DB2].system.commands

    def test_one_that_answers_waits_for_its_turn(self, hosts: Hosts, running: FakeCluster) -> None:
        form(*hosts.values())
        assert DB2 in running.running
        due.add(hosts[DB2].ctx, UNIT, ["/etc/etcd/keadb.yml"])
        assert form(hosts[DB2]) == {DB2: 0}
        assert ["systemctl", "restart", "--no-block", UNIT] not in hosts[DB2].system.commands
        assert due.due(hosts[DB2].ctx, UNIT) != ()


def test_a_record_that_is_not_readable_is_an_error(hosts: Hosts, running: FakeCluster) -> None:
    form(*hosts.values())
    key = base64.b64encode(etcd_members.RECORD.encode()).decode()
    running.keys[key] = base64.b64encode(b"[1]").decode()
    outcome = form(hosts[WITNESS])[WITNESS]
    assert isinstance(outcome, HostError)
    assert not isinstance(outcome, Refused)
    assert etcd_members.RECORD in str(outcome)


def _tls(host: HostRoot) -> ssl.SSLContext:
    return tls_context(host.ctx, CLIENT_TLS)
