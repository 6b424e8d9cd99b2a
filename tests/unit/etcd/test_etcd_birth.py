"""Members are born together or not at all, and a cut birth goes on where it was."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from hostkit import etcd_birth, etcd_form, etcd_plan
from hostkit.errors import HostError, Refused
from hostkit.etcd_client import fetch, tls_context
from tests.unit.etcd.etcd_authority import Authority
from tests.unit.etcd.etcd_fake_cluster import FakeCluster
from tests.unit.etcd.etcd_fakes import ADDRESSES, BIRTH, CONFIG, DATA, REJOIN_CONFIG, HostRoot, make_hosts

DB1, DB2, WITNESS = ADDRESSES
Outcome = dict[str, int | BaseException]


def form(*hosts: HostRoot, delays: dict[str, float] | None = None) -> Outcome:
    """Run etcd-form on these hosts at once, as the engine does; return exit codes or errors."""
    outcome: Outcome = {}

    def run(host: HostRoot) -> None:
        time.sleep((delays or {}).get(host.name, 0))
        try:
            outcome[host.name] = etcd_form.main(host.ctx, [])
        except HostError as e:
            outcome[host.name] = e

    threads = [threading.Thread(target=run, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def refused(outcome: Outcome, name: str) -> str:
    """Return the message with which a host refused."""
    assert isinstance(outcome[name], Refused), outcome
    return str(outcome[name])


def limit(hosts: dict[str, HostRoot], seconds: float) -> None:
    """Shorten how long hosts wait for peers."""
    for host in hosts.values():
        host.set_plan(birth_seconds=seconds, health_seconds=seconds)


class TestAllBlank:
    def test_three_hosts_at_once_are_born_together(self, hosts: dict[str, HostRoot], cluster: FakeCluster) -> None:
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert set(cluster.running) == set(hosts)

    def test_a_slow_host_is_waited_for_and_nothing_starts_before(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        early: list[str] = []
        timer = threading.Timer(0.5, lambda: early.extend(cluster.running))
        timer.start()
        assert form(*hosts.values(), delays={WITNESS: 0.8}) == dict.fromkeys(hosts, 0)
        timer.join()
        assert early == []

    def test_the_decision_is_forgotten_once_the_member_is_healthy(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        form(*hosts.values())
        assert cluster.quorum
        assert not any(host.exists(BIRTH) for host in hosts.values())

    def test_the_start_does_not_wait_for_a_quorum(self, hosts: dict[str, HostRoot], cluster: FakeCluster) -> None:
        form(*hosts.values())
        assert cluster.quorum
        assert all(h.system.started for h in hosts.values())

    def test_the_first_start_is_told_all_members_and_later_ones_nothing(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        told: list[str] = []
        usual = (hosts[DB1].root / CONFIG[1:]).read_text()

        def start() -> None:
            told.extend((hosts[DB1].root / path[1:]).read_text() for path in (BIRTH, REJOIN_CONFIG))
            cluster.start(DB1)

        hosts[DB1].system.on_start = start
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        record, config = told
        assert f"KEADB_ETCD_CONFIG={REJOIN_CONFIG}" in record.splitlines()
        members = ",".join(f"{name}={cluster.url(name)}" for name in hosts)
        assert config == usual.replace("all=of-them", members)
        assert not hosts[DB1].exists(REJOIN_CONFIG)
        assert (hosts[DB1].root / CONFIG[1:]).read_text() == usual

    def test_a_single_member_needs_nobody(self, tmp_path: Path, authority: Authority) -> None:
        hosts = make_hosts(tmp_path / "single", authority, [DB1])
        cluster = FakeCluster(hosts)
        hosts[DB1].system.on_start = lambda: cluster.start(DB1)
        try:
            assert form(hosts[DB1]) == {DB1: 0}
        finally:
            cluster.stop_all()

    def test_a_second_run_starts_nothing(self, hosts: dict[str, HostRoot], cluster: FakeCluster) -> None:
        form(*hosts.values())
        assert cluster.quorum
        for host in hosts.values():
            host.system.commands.clear()
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert not any(host.system.started for host in hosts.values())


@pytest.mark.usefixtures("cluster")
class TestRefused:
    def test_an_unreachable_peer_is_named_and_nothing_is_started(self, hosts: dict[str, HostRoot]) -> None:
        limit(hosts, 2)
        outcome = form(hosts[DB1], hosts[DB2])
        for name in (DB1, DB2):
            message = refused(outcome, name)
            assert f"{WITNESS} (127.0.30.12:" in message
            assert "connection refused" in message
            assert f"Nothing was started on {name}" in message
            assert not hosts[name].system.started
            assert not hosts[name].exists(BIRTH)

    def test_a_peer_that_does_not_answer_is_named(
        self, hosts: dict[str, HostRoot], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(etcd_birth, "_ASK_SECONDS", 0.2)
        limit(hosts, 2)
        with socket.create_server((ADDRESSES[WITNESS], hosts[DB1].plan["peer_port"])):
            assert f"{WITNESS} (127.0.30.12:" in refused(form(hosts[DB1], hosts[DB2]), DB1)

    def test_a_peer_of_another_plan_is_named(self, hosts: dict[str, HostRoot]) -> None:
        limit(hosts, 2)
        others = [*hosts[WITNESS].plan["members"][:2], {"name": WITNESS, "address": "127.0.30.12"}]
        others[0] = {"name": DB1, "address": "127.0.30.99"}
        hosts[WITNESS].set_plan(members=others)
        with etcd_birth.Listener(hosts[WITNESS].ctx, etcd_plan.required(hosts[WITNESS].ctx)):
            outcome = form(hosts[DB2])
        assert f"{WITNESS} was given other members" in refused(outcome, DB2)
        assert not hosts[DB2].system.started

    def test_a_peer_under_the_wrong_address_is_named(
        self, hosts: dict[str, HostRoot], tmp_path: Path, authority: Authority
    ) -> None:
        limit(hosts, 2)
        impostor = make_hosts(tmp_path / "other", authority)[WITNESS]
        impostor.set_plan(**{k: hosts[WITNESS].plan[k] for k in ("peer_port", "client_port", "birth_seconds")})
        plan = etcd_plan.required(impostor.ctx)
        object.__setattr__(plan, "host", DB2)
        object.__setattr__(plan, "members", (*plan.members[:1], etcd_plan.Member(DB2, ADDRESSES[WITNESS])))
        with etcd_birth.Listener(impostor.ctx, plan):
            message = refused(form(hosts[DB1]), DB1)
        assert f"127.0.30.12 says that it is '{DB2}', not {WITNESS}" in message

    def test_a_stranger_without_our_certificate_is_not_answered(self, hosts: dict[str, HostRoot]) -> None:
        host = hosts[DB1]
        plan = etcd_plan.required(host.ctx)
        blind = ssl.create_default_context(cafile=str(host.ctx.path(plan.tls.ca)))
        with etcd_birth.Listener(host.ctx, plan):
            ours, _ = fetch(plan.me, plan.peer_port, etcd_birth.PATH, tls=tls_context(host.ctx, plan.tls))
            assert ours == 200
            with pytest.raises(HostError, match="unreachable"):
                fetch(plan.me, plan.peer_port, etcd_birth.PATH, tls=blind)

    def test_a_peer_of_another_authority_counts_as_unreachable(
        self, hosts: dict[str, HostRoot], tmp_path: Path
    ) -> None:
        limit(hosts, 2)
        foreign = make_hosts(tmp_path / "foreign", Authority("another CA"))[WITNESS]
        foreign.set_plan(**hosts[WITNESS].plan)
        outcome = form(hosts[DB1], hosts[DB2], foreign)
        assert f"{WITNESS} (127.0.30.12:" in refused(outcome, DB1)
        assert not foreign.system.started

    def test_a_foreign_process_on_the_peer_port_is_said(self, hosts: dict[str, HostRoot]) -> None:
        with socket.create_server((ADDRESSES[DB1], hosts[DB1].plan["peer_port"])):
            outcome = form(hosts[DB1])
        assert "something else holds etcd's peer port" in str(outcome[DB1])

    def test_a_peer_with_data_that_says_so_is_named(
        self, hosts: dict[str, HostRoot], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limit(hosts, 2)
        witness = etcd_plan.required(hosts[WITNESS].ctx)
        with etcd_birth.Listener(hosts[WITNESS].ctx, witness) as listener:
            said = {**listener.says(), "blank": False}
            monkeypatch.setattr(listener, "says", lambda: said)
            message = refused(form(hosts[DB1]), DB1)
        assert f"{WITNESS} has data of an earlier etcd" in message


class TestData:
    def test_members_with_data_just_start(self, hosts: dict[str, HostRoot], cluster: FakeCluster) -> None:
        for host in hosts.values():
            host.give_data()
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert cluster.quorum

    def test_a_cluster_of_other_members_is_refused(self, hosts: dict[str, HostRoot], running: FakeCluster) -> None:
        running.stop(DB1)
        hosts[DB1].system.active = "inactive"
        shutil.rmtree(hosts[DB1].root / DATA[1:])
        del running.entry(DB1)["clientURLs"]
        running.list.append({"id": 7, "name": "stranger", "peerURLs": ["https://127.0.30.99:1"]})
        assert "other members than declared" in refused(form(hosts[DB1]), DB1)

    def test_data_without_a_log_is_a_birth_that_was_cut(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        for host in hosts.values():
            host.write(f"{DATA}/member/snap/db", "")
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert cluster.quorum


class TestCut:
    def test_cut_between_decision_and_start_goes_on_with_the_same_birth(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        def power_cut() -> None:
            msg = "cut"
            raise HostError(msg)

        hosts[DB1].system.on_start = power_cut
        outcome = form(*hosts.values())
        assert str(outcome[DB1]) == "cut"
        assert hosts[DB1].exists(BIRTH)
        assert set(cluster.running) == {DB2, WITNESS}
        hosts[DB1].system.active = "inactive"
        hosts[DB1].system.on_start = lambda: cluster.start(DB1)
        assert form(hosts[DB1]) == {DB1: 0}
        assert not hosts[DB1].exists(BIRTH)

    def test_all_cut_after_the_decision_need_nobody_to_go_on(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        for host in hosts.values():
            etcd_birth.decide(host.ctx, etcd_plan.required(host.ctx))
        assert form(hosts[DB1], hosts[DB2]) == {DB1: 0, DB2: 0}
        assert form(hosts[WITNESS]) == {WITNESS: 0}
        assert cluster.quorum

    def test_a_host_cut_before_its_decision_joins_the_birth_of_the_others(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        cluster.start(DB2)  # without a quorum: knows db-01 as a member that never started
        cluster.start(WITNESS)
        for name in (DB2, WITNESS):
            hosts[name].system.active = "active"
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert set(cluster.running) == set(hosts)

    def test_two_slow_hosts_join_the_one_that_started(self, hosts: dict[str, HostRoot], cluster: FakeCluster) -> None:
        cluster.start(DB1)
        hosts[DB1].system.active = "active"
        assert form(*hosts.values()) == dict.fromkeys(hosts, 0)
        assert cluster.quorum

    def test_a_slow_host_does_not_join_while_a_peer_is_unreachable(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        limit(hosts, 2)
        cluster.start(DB1)
        message = refused(form(hosts[DB2]), DB2)
        assert WITNESS in message
        assert not hosts[DB2].system.started

    def test_a_decision_about_other_members_does_not_count(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        limit(hosts, 0.3)
        hosts[DB1].write(BIRTH, "KEADB_ETCD_BIRTH=of-another-plan\n")
        refused(form(hosts[DB1]), DB1)
        assert not hosts[DB1].exists(BIRTH), "the unit would start with it at the next boot"
        assert not cluster.running

    def test_nobody_closes_before_all_have_decided(
        self, hosts: dict[str, HostRoot], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A host that sees the others late still finds them, although they decided long before."""
        limit(hosts, 3)
        plans = {name: etcd_plan.required(host.ctx) for name, host in hosts.items()}
        closed: list[str] = []
        slow_decides = threading.Event()
        original = etcd_birth.ask

        def ask(plan: etcd_plan.Plan, peer: etcd_plan.Member, tls: ssl.SSLContext) -> etcd_birth.Answer:
            found = original(plan, peer, tls)
            if plan.host == WITNESS and found.ready >= 1 and not slow_decides.is_set():
                return etcd_birth.Answer(None, ready=0)  # has not noticed yet
            return found

        monkeypatch.setattr(etcd_birth, "ask", ask)

        def run(name: str) -> None:
            etcd_birth.await_birth(hosts[name].ctx, plans[name])
            closed.append(name)

        threads = [threading.Thread(target=run, args=(name,)) for name in hosts]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        assert closed == []
        assert hosts[DB1].exists(BIRTH), "the others had decided"
        slow_decides.set()
        for thread in threads:
            thread.join()
        assert set(closed) == set(hosts)

    def test_a_host_that_misses_a_peer_does_not_say_that_it_has_seen_all(
        self, hosts: dict[str, HostRoot], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limit(hosts, 0.6)
        seen: list[int] = []
        original = etcd_birth.ask

        def ask(plan: etcd_plan.Plan, peer: etcd_plan.Member, tls: ssl.SSLContext) -> etcd_birth.Answer:
            found = original(plan, peer, tls)
            if not found.silent:
                seen.append(found.ready)
            return found

        monkeypatch.setattr(etcd_birth, "ask", ask)
        form(hosts[DB1], hosts[DB2])
        assert set(seen) == {0}

    def test_a_decided_host_does_not_linger_for_one_that_is_gone(
        self, hosts: dict[str, HostRoot], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = etcd_plan.required(hosts[DB1].ctx)
        blank = etcd_birth.Answer(None, ready=1)
        gone = etcd_birth.Answer("gone", silent=True)
        answers = iter([blank, blank, gone, gone])
        monkeypatch.setattr(etcd_birth, "ask", lambda *_: next(answers))
        etcd_birth.await_birth(hosts[DB1].ctx, plan)
        assert hosts[DB1].exists(BIRTH)


class TestHealth:
    def test_a_member_without_a_quorum_is_an_error_with_the_units_last_lines(
        self, hosts: dict[str, HostRoot], cluster: FakeCluster
    ) -> None:
        limit(hosts, 0.3)
        hosts[DB1].give_data()
        outcome = form(hosts[DB1])
        assert not cluster.quorum
        assert re.search(
            r"no quorum after 0.3 s .*RAFT NO LEADER.*the unit's last line", str(outcome[DB1]), re.DOTALL
        )

    def test_a_unit_on_its_way_is_waited_for_and_not_started_again(
        self, hosts: dict[str, HostRoot], running: FakeCluster
    ) -> None:
        hosts[DB1].system.active = "activating"
        assert form(hosts[DB1]) == {DB1: 0}
        assert not hosts[DB1].system.started
        assert running.quorum
