"""One CA for all tests, hosts under temporary roots, and a fake etcd that each of them starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostkit import etcd_birth, etcd_rejoin
from tests.unit.etcd.etcd_authority import Authority
from tests.unit.etcd.etcd_fake_cluster import FakeCluster
from tests.unit.etcd.etcd_fakes import HostRoot, make_hosts


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for hosts that may still come."""
    monkeypatch.setattr(etcd_birth, "REACH_SECONDS", 0.4)
    monkeypatch.setattr(etcd_rejoin, "ASK_SECONDS", 3.0)
    monkeypatch.setattr(etcd_rejoin, "SIGN_SECONDS", 0.6)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Return the site's CA."""
    return Authority()


@pytest.fixture
def hosts(tmp_path: Path, authority: Authority) -> dict[str, HostRoot]:
    """Return three blank hosts of one plan."""
    return make_hosts(tmp_path, authority)


@pytest.fixture
def cluster(hosts: dict[str, HostRoot]) -> Iterator[FakeCluster]:
    """Return the fake etcd that starting a host's unit starts; nothing runs yet."""
    made = FakeCluster(hosts)
    for name, host in hosts.items():
        host.system.on_start = lambda name=name: made.start(name)  # type: ignore[misc]  # bound now
    yield made
    made.stop_all()


@pytest.fixture
def running(cluster: FakeCluster) -> FakeCluster:
    """Return the fake etcd with all members up; db-01 leads, nobody needs to log in."""
    for name in cluster.hosts:
        cluster.start(name)
        cluster.hosts[name].system.active = "active"
    cluster.leader = "site-db-01"
    return cluster
