"""A host that is declared no more stops what it ran for the cluster, and nothing that the cluster still counts on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hostkit import leave, units
from hostkit.errors import BadInput, Refused
from hostkit.patroni_client import Rest, RestError
from tests.unit.etcd.etcd_fakes import ADDRESSES, UNIT

if TYPE_CHECKING:
    from tests.unit.etcd.etcd_fake_cluster import FakeCluster
    from tests.unit.etcd.etcd_fakes import HostRoot

DB1, DB2, WITNESS = ADDRESSES
PATRONI = "patroni.service"


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> dict[str, units.State]:
    """Return what systemd says of units; what it does not know is not found."""
    known: dict[str, units.State] = {}
    nothing = units.State(load="not-found", active="inactive", sub="", file="", done=False, ran=False)

    def states(ctx: Any, names: Any) -> dict[str, units.State]:
        del ctx
        return {name: known.get(name, nothing) for name in names}

    monkeypatch.setattr(units, "states", states)
    return known


def state(active: str = "active", file: str = "enabled") -> units.State:
    return units.State(load="loaded", active=active, sub="", file=file, done=False, ran=True)


def database(host: HostRoot, monkeypatch: pytest.MonkeyPatch, role: str | None) -> None:
    """Give the host a plan of a database, and Patroni's answer (None: it gives none)."""
    members = [{"name": name, "address": ADDRESSES[name]} for name in (DB1, DB2)]
    plan = {
        "format": 1,
        "scope": "site",
        "namespace": "/service/",
        "members": members,
        "rest_port": 8008,
        "etcd": members,
        "etcd_port": 2379,
        "etcd_login": {"user": "patroni_a", "secret": "etcd_patroni_a_password", "spare": "patroni_b"},
        "host": host.name,
        "unit": PATRONI,
        "certificate": "/etc/patroni/tls/postgres.crt",
        "data_dir": "/var/lib/postgresql/15/kea",
        "start_once": "/run/keadb/patroni-start",
        "start_always": "/var/lib/keadb/patroni-member",
        "first": False,
        "birth_seconds": 1,
        "copy_seconds": 1,
    }
    host.write("/etc/keadb/cluster/patroni-form.json", json.dumps(plan))

    def node(self: Any, member: Any) -> dict[str, Any]:
        del self, member
        if role is None:
            msg = "Patroni is unreachable"
            raise RestError(msg)
        return {"role": role, "state": "running"}

    monkeypatch.setattr(Rest, "node", node)


class TestDatabase:
    def test_a_standby_is_stopped_and_does_not_come_back_with_the_machine(
        self,
        hosts: dict[str, HostRoot],
        systemd: dict[str, units.State],
        monkeypatch: pytest.MonkeyPatch,
        capsys: Any,
    ) -> None:
        database(hosts[DB2], monkeypatch, "replica")
        systemd[PATRONI] = state()
        assert leave.main(hosts[DB2].ctx, ["database"]) == 0
        assert json.loads(capsys.readouterr().out) == {"changed": True, "stopped": [PATRONI]}
        assert hosts[DB2].system.commands == [
            ["systemctl", "disable", "--", PATRONI],
            ["systemctl", "stop", "--", PATRONI],
        ]

    def test_clients_are_led_elsewhere_first(
        self,
        hosts: dict[str, HostRoot],
        systemd: dict[str, units.State],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        database(hosts[DB2], monkeypatch, "replica")
        way = ["keepalived.service", "haproxy.service", "pgbouncer.service"]
        systemd |= {name: state() for name in (PATRONI, *way)}
        assert leave.main(hosts[DB2].ctx, ["database"]) == 0
        assert [c[-1] for c in hosts[DB2].system.commands if c[1] == "stop"] == [*way, PATRONI]

    def test_a_second_time_there_is_nothing_to_do(
        self,
        hosts: dict[str, HostRoot],
        systemd: dict[str, units.State],
        monkeypatch: pytest.MonkeyPatch,
        capsys: Any,
    ) -> None:
        database(hosts[DB2], monkeypatch, None)
        systemd[PATRONI] = state("inactive", "disabled")
        assert leave.main(hosts[DB2].ctx, ["database"]) == 0
        assert json.loads(capsys.readouterr().out)["changed"] is False
        assert hosts[DB2].system.commands == []

    @pytest.mark.parametrize(("role", "why"), [("primary", "leads PostgreSQL"), (None, "nobody knows whether")])
    def test_one_that_leads_or_may_lead_goes_on(
        self,
        hosts: dict[str, HostRoot],
        systemd: dict[str, units.State],
        monkeypatch: pytest.MonkeyPatch,
        role: str | None,
        why: str,
    ) -> None:
        database(hosts[DB2], monkeypatch, role)
        systemd[PATRONI] = state()
        with pytest.raises(Refused, match=why):
            leave.main(hosts[DB2].ctx, ["database"])
        assert hosts[DB2].system.commands == []


class TestEtcd:
    def test_a_member_that_was_removed_is_disabled(
        self, hosts: dict[str, HostRoot], running: FakeCluster, systemd: dict[str, units.State]
    ) -> None:
        running.list.remove(running.entry(WITNESS))
        systemd |= {UNIT: state("inactive"), "keadb-etcd-lead.timer": state()}
        assert leave.main(hosts[WITNESS].ctx, ["etcd"]) == 0
        disabled = [c[-1] for c in hosts[WITNESS].system.commands if c[1] == "disable"]
        assert disabled == [UNIT, "keadb-etcd-lead.timer"]

    def test_a_member_is_not_stopped(
        self, hosts: dict[str, HostRoot], running: FakeCluster, systemd: dict[str, units.State]
    ) -> None:
        assert running.quorum
        systemd[UNIT] = state()
        with pytest.raises(Refused, match="is a member still"):
            leave.main(hosts[DB2].ctx, ["etcd"])


@pytest.mark.parametrize("given", [[], ["postgres"], ["etcd", "database"]])
def test_anything_else_is_bad_input(hosts: dict[str, HostRoot], given: list[str]) -> None:
    with pytest.raises(BadInput, match="allowed is one of database, etcd"):
        leave.main(hosts[DB1].ctx, given)
