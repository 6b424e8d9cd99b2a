"""etcd's leadership is kept on the witness, unless it is held or the witness is not fit."""

from __future__ import annotations

import os

import pytest

from hostkit import etcd_lead, etcd_plan
from hostkit.errors import BadInput, HostError
from tests.unit.etcd.etcd_fake_cluster import FakeCluster
from tests.unit.etcd.etcd_fakes import ADDRESSES, HostRoot

DB1, DB2, WITNESS = ADDRESSES
NOW = 1_000_000.0


def take(host: HostRoot) -> str:
    """Run it at a fixed time of day."""
    return etcd_lead.take(host.ctx, etcd_plan.required(host.ctx), now=NOW)


def hold(host: HostRoot, since: float, text: str = "") -> None:
    """Lay down a hold of some age."""
    path = host.write(etcd_lead.HOLD, text)
    os.utime(path, (since, since))


@pytest.mark.parametrize("auth", [False, True], ids=["open", "with passwords"])
def test_leadership_comes_to_the_witness(hosts: dict[str, HostRoot], running: FakeCluster, *, auth: bool) -> None:
    running.auth = auth
    running.users = {"root": {"password": "root-secret-0123456789", "roles": ["root"]}}
    assert take(hosts[WITNESS]) == f"took etcd's leadership from {DB1}"
    assert running.leader == WITNESS


def test_nothing_is_asked_for_when_it_is_there(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.leader = WITNESS
    assert take(hosts[WITNESS]) == ""
    assert "/v3/maintenance/transfer-leadership" not in running.calls


@pytest.mark.parametrize(
    ("age", "text", "held"),
    [
        (10, "", True),
        (3599, "", True),
        (3601, "", False),
        (50, "60", True),
        (61, "60", False),
        (3000, "nonsense", True),
        (86399, "999999", True),
        (86401, "999999", False),
    ],
)
def test_a_hold_counts_until_it_expires(
    hosts: dict[str, HostRoot], running: FakeCluster, age: float, text: str, *, held: bool
) -> None:
    hold(hosts[WITNESS], NOW - age, text)
    said = take(hosts[WITNESS])
    assert (running.leader == DB1) is held
    assert ("held" in said) is held


def test_a_hold_from_the_future_does_not_last_for_ever(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    hold(hosts[WITNESS], NOW + 10 * 86400, "60")
    assert running.quorum
    assert "another 86400 s" in take(hosts[WITNESS])


def test_a_witness_whose_member_is_down_takes_nothing(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.stop(WITNESS)
    assert take(hosts[WITNESS]).startswith("not taking leadership: site-witness")
    assert running.leader == DB1


def test_a_witness_that_is_not_healthy_takes_nothing(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.alarms = ["NOSPACE"]
    assert take(hosts[WITNESS]).startswith("not taking leadership: site-witness is not healthy")
    assert running.leader == DB1


def test_while_any_member_is_down_leadership_stays(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    """It may be PostgreSQL's leader: a new leader of etcd would have everybody wait for its whole lease again."""
    running.stop(DB2)
    said = take(hosts[WITNESS])
    assert said.startswith("not taking leadership: site-db-02")
    assert said.endswith("a new leader would begin every lease anew")
    assert "/v3/maintenance/transfer-leadership" not in running.calls
    running.start(DB2)
    assert take(hosts[WITNESS]) == f"took etcd's leadership from {DB1}"


def test_without_a_leader_nothing_is_taken(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.leader = None
    assert "there is no leader" in take(hosts[WITNESS])


def test_a_leader_with_another_root_password_is_an_error(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    running.auth = True
    running.users = {"root": {"password": "other", "roles": ["root"]}}
    with pytest.raises(HostError, match="etcd_root_password"):
        take(hosts[WITNESS])


def test_the_verb_does_nothing_on_other_hosts(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    assert etcd_lead.main(hosts[DB2].ctx, []) == 0
    assert running.leader == DB1
    assert etcd_lead.main(hosts[WITNESS].ctx, []) == 0
    assert running.leader == WITNESS


def test_the_verb_takes_no_arguments(hosts: dict[str, HostRoot]) -> None:
    with pytest.raises(BadInput, match="no arguments"):
        etcd_lead.main(hosts[DB1].ctx, ["now"])
