"""Drift of what a cluster shares: strangers among etcd's members, settings in etcd, roles in PostgreSQL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hostkit import check_cluster, etcd_plan, etcd_probe, kea_plan, kea_roles, patroni_plan
from hostkit.errors import HostError
from tests.unit.hostkit.fakes import Machine

ALL = ("etcd-form", "patroni-converge", "patroni-login", "kea-roles")


def found(machine: Machine, *applied: str) -> list[tuple[str, str, str, str]]:
    """What is told, short."""
    return [(b, i["kind"], i["name"], i["is"]) for b, i in check_cluster.items(machine.ctx, applied)]


def member(name: str, address: str, number: str = "1") -> dict[str, Any]:
    return {"name": name, "address": address, "id": number}


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A plan of two members on the first host, and the members that there are."""
    declared = tuple(SimpleNamespace(name=n, address=f"10.0.0.{i}") for i, n in enumerate("ab"))
    made = SimpleNamespace(host="a", members=declared, there=[member("a", "10.0.0.0"), member("b", "10.0.0.1")])
    monkeypatch.setattr(etcd_plan, "load", lambda _ctx: made)
    monkeypatch.setattr(etcd_probe, "state", lambda _ctx: {"members": made.there})
    return made


def test_only_declared_members_are_no_drift(machine: Machine, etcd: SimpleNamespace) -> None:
    assert found(machine, "etcd-form") == []
    assert len(etcd.there) == 2


def test_a_stranger_is_told_whatever_it_calls_itself_and_on_one_host_only(
    machine: Machine, etcd: SimpleNamespace
) -> None:
    etcd.there += [member("a", "https://10.0.0.9:2380"), member("", "https://10.0.0.8:2380", "beef")]
    assert found(machine, "etcd-form") == [
        ("etcd-form", "member", "etcd member a", "at https://10.0.0.9:2380, is not declared"),
        ("etcd-form", "member", "etcd member beef", "at https://10.0.0.8:2380, is not declared"),
    ]
    etcd.host = "b"
    assert found(machine, "etcd-form") == []


def test_settings_that_differ_are_told_one_by_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed, added and taken away; a pause is nobody's declaration."""
    wanted = {"ttl": 20, "postgresql": {"parameters": {"work_mem": "4MB"}}}
    live = {"ttl": 30, "pause": True, "mine": 1, "postgresql": {"parameters": {}}}
    monkeypatch.setattr(patroni_plan, "settings", lambda _ctx: SimpleNamespace(cluster=None, config=wanted))
    monkeypatch.setattr(check_cluster, "Rest", lambda *_: SimpleNamespace(first=lambda _what: (None, live)))
    told = {name: what for _, _, name, what in found(machine, "patroni-converge")}
    assert set(told) == {"ttl", "mine", "postgresql.parameters.work_mem"}
    assert told["ttl"] == "(now => declared) 30 => 20"
    assert found(machine, "etcd-form-of-another") == []


@pytest.mark.parametrize("leads", [True, False])
def test_roles_are_compared_where_the_leader_is(
    leads: bool,  # noqa: FBT001 - a parameter of the test
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = {"psql": "psql", "superuser": "postgres"}
    monkeypatch.setattr(kea_plan, "load", lambda *_: plan)
    monkeypatch.setattr(kea_plan, "logins", lambda _plan: ())
    monkeypatch.setattr(kea_roles, "look", lambda *_: (leads, [("grant CONNECT to x", "", "GRANT ...")]))
    expected = [("kea-roles", "role", "grant CONNECT to x", "is due again")] if leads else []
    assert found(machine, "kea-roles") == expected


def test_what_cannot_be_compared_says_so_and_what_was_never_applied_is_not_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        msg = "no answer"
        raise HostError(msg)

    for module, name in ((etcd_plan, "load"), (patroni_plan, "settings"), (kea_plan, "load")):
        monkeypatch.setattr(module, name, broken)
    assert found(machine) == []
    assert [(b, what) for b, _, _, what in found(machine, *ALL)] == [
        (bundle, "could not be compared: no answer") for bundle in ALL
    ]
