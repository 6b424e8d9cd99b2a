"""A running member reads its new files by a restart, while the others are healthy, and never otherwise."""

from __future__ import annotations

import json

import pytest

from hostkit import due, etcd_form, etcd_roll, software
from hostkit.errors import HostError, Refused
from tests.unit.etcd.etcd_fake_cluster import FakeCluster
from tests.unit.etcd.etcd_fakes import ADDRESSES, UNIT, HostRoot

DB1, DB2, WITNESS = ADDRESSES
CONFIG = "/etc/etcd/keadb.yml"
RESTART = ["systemctl", "restart", UNIT]


@pytest.fixture
def rolling(hosts: dict[str, HostRoot], running: FakeCluster) -> FakeCluster:
    """Return a cluster of healthy members, each due for a restart; a leader that ends loses its office."""
    for name, host in hosts.items():

        def restart(name: str = name) -> None:
            running.stop(name)
            if running.leader == name:
                running.leader = next(iter(running.running))
            running.start(name)

        host.system.on_restart = restart
        due.add(host.ctx, UNIT, [CONFIG])
    return running


def limit(hosts: dict[str, HostRoot], seconds: float) -> None:
    """Shorten the waits."""
    for host in hosts.values():
        host.set_plan(health_seconds=seconds)


def test_a_due_member_is_restarted_once(
    hosts: dict[str, HostRoot], rolling: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run finds nothing to do and says so."""
    assert rolling.quorum
    assert etcd_roll.main(hosts[DB2].ctx, []) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": True, "restarted_for": [CONFIG]}
    assert due.due(hosts[DB2].ctx, UNIT) == ()
    assert etcd_roll.main(hosts[DB2].ctx, []) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False
    assert hosts[DB2].system.commands.count(RESTART) == 1


def test_what_is_not_due_is_left_alone(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    """Not even looked at: nothing is asked of anybody."""
    running.stop(DB2)
    assert etcd_roll.main(hosts[DB1].ctx, []) == 0
    assert hosts[DB1].system.commands == []


def test_nothing_is_restarted_while_another_member_is_down(hosts: dict[str, HostRoot], rolling: FakeCluster) -> None:
    """It is named, and the restart stays due; once it is back, the same run restarts."""
    limit(hosts, 0.2)
    rolling.stop(DB1)
    with pytest.raises(Refused, match=rf"due for a restart \({CONFIG}\), but the others.*{DB1}.*Nothing was restart"):
        etcd_roll.main(hosts[DB2].ctx, [])
    assert RESTART not in hosts[DB2].system.commands
    assert due.due(hosts[DB2].ctx, UNIT) == (CONFIG,)
    rolling.start(DB1)
    assert etcd_roll.main(hosts[DB2].ctx, []) == 0
    assert due.due(hosts[DB2].ctx, UNIT) == ()


def test_a_member_without_a_vote_does_not_count(hosts: dict[str, HostRoot], rolling: FakeCluster) -> None:
    """With a learner, the restart of one of two voters would stop all writes."""
    limit(hosts, 0.2)
    rolling.entry(WITNESS)["isLearner"] = True
    with pytest.raises(Refused, match=f"{WITNESS} has no vote"):
        etcd_roll.main(hosts[DB2].ctx, [])
    assert RESTART not in hosts[DB2].system.commands


def test_a_leader_hands_over_before_it_ends(hosts: dict[str, HostRoot], rolling: FakeCluster) -> None:
    """Others lead already when the restart begins."""
    leaders: list[str | None] = []
    restart = hosts[DB1].system.on_restart

    def seen() -> None:
        leaders.append(rolling.leader)
        restart()

    hosts[DB1].system.on_restart = seen
    assert rolling.leader == DB1
    etcd_roll.main(hosts[DB1].ctx, [])
    assert leaders == [DB2]


def test_a_hand_over_that_fails_does_not_keep_the_restart_from_happening(
    hosts: dict[str, HostRoot], rolling: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """With authentication on, this host has no password: a member that ends hands over by itself too."""
    rolling.auth = True
    etcd_roll.main(hosts[DB1].ctx, [])
    assert "leadership was not handed over before" in capsys.readouterr().err
    assert rolling.leader == DB2
    assert due.due(hosts[DB1].ctx, UNIT) == ()


def test_leadership_is_back_where_it_belongs_after_the_last_one(
    hosts: dict[str, HostRoot], rolling: FakeCluster
) -> None:
    """The witness takes it at once, not when its timer comes round."""
    rolling.leader = WITNESS
    etcd_roll.main(hosts[WITNESS].ctx, [])
    assert rolling.leader == WITNESS
    assert "/v3/maintenance/transfer-leadership" in rolling.calls


def test_a_member_that_does_not_come_back_stays_due_and_stops_the_turns(
    hosts: dict[str, HostRoot], rolling: FakeCluster
) -> None:
    """The command fails, so the engine goes no further; the next run tries again."""
    limit(hosts, 0.2)
    hosts[DB2].system.on_restart = lambda: rolling.stop(DB2)
    with pytest.raises(HostError, match=r"was restarted and is not healthy since; no other[^§]*unit's last line"):
        etcd_roll.main(hosts[DB2].ctx, [])
    assert due.due(hosts[DB2].ctx, UNIT) == (CONFIG,)


def test_cut_before_it_was_seen_healthy_it_is_restarted_again(
    hosts: dict[str, HostRoot], rolling: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once more than needed, rather than never."""
    assert rolling.quorum

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(etcd_form, "await_health", power_cut)
        with pytest.raises(KeyboardInterrupt):
            etcd_roll.main(hosts[DB2].ctx, [])
    etcd_roll.main(hosts[DB2].ctx, [])
    assert hosts[DB2].system.commands.count(RESTART) == 2
    assert due.due(hosts[DB2].ctx, UNIT) == ()


def test_an_upgraded_package_is_a_reason_like_a_file(
    hosts: dict[str, HostRoot],
    rolling: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the same turn; what nobody recorded is read from the process, so a restart is all that clears it."""
    assert rolling.quorum
    due.clear(hosts[DB2].ctx, UNIT)
    package = "etcd-server 3.5.17-1"
    monkeypatch.setattr(software, "newer", lambda _ctx, key: (package,) if key == "etcd" else ())
    etcd_roll.main(hosts[DB2].ctx, [])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["restarted_for"] == [package]
    assert f"{UNIT} on {DB2} is due for a restart ({package}): restarting" in captured.err
    assert hosts[DB2].system.commands.count(RESTART) == 1
