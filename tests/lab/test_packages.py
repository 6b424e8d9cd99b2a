"""Package versions as a reviewed change: installed everywhere, restarted in turns; a writer goes on meanwhile."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.harness import MEASURED, Site, Writer, wait_for
from tests.lab.newer_packages import newer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.lab

PROGRAMS = {"postgresql": "postgresql-15", "etcd": "etcd-server"}
"""Programs as the site file names them, each with the package that its process is made of."""
PACKAGES = ("postgresql-15", "postgresql-client-15", "etcd-server", "etcd-client")
ETCD, PATRONI = "keadb-etcd.service", "patroni.service"


def pinned(versions: Mapping[str, str]) -> Callable[[dict[str, Any]], None]:
    """Return the change of a site file that pins these versions."""

    def change(site: dict[str, Any]) -> None:
        site.setdefault("packages", {}).update(versions)

    return change


def hosts(site: Site) -> list[str]:
    """Return the site's hosts, in the order in which their etcd restarts."""
    return [*site.database_hosts, f"{site.name}-kea-witness"]


def unit_started(site: Site, host: str, unit: str) -> float:
    """Return when a unit was started, on the clock that all hosts share."""
    asked = ["systemctl", "show", "--property=ExecMainStartTimestampMonotonic", "--value", "--", unit]
    return int(site.lab.exec(host, asked).stdout) / 1e6


def server_started(site: Site, host: str) -> float:
    """Return when a host's PostgreSQL was started."""
    return float(site.sql(host, "SELECT extract(epoch FROM pg_postmaster_start_time())"))


def has_all(site: Site, host: str, ids: set[int]) -> bool:
    """Say whether every acknowledged row is there."""
    return ids <= {int(line) for line in site.sql(host, "SELECT id FROM drill.written").splitlines()}


def test_pinned_versions_roll_through_the_cluster(settled: Site, writer: Writer, tmp_path_factory: Any) -> None:
    """PostgreSQL: standby, then leader in place; etcd: one after the other, the witness last; Patroni goes on.

    At last a version that nobody has: one clear error, and nothing is touched.
    """
    site, folder = settled, tmp_path_factory.mktemp("newer") / "repository"
    leader = site.leader()
    assert leader
    standby = next(host for host in site.database_hosts if host != leader)
    with newer(site.lab, folder, PACKAGES) as versions:
        before = _started(site)
        site.edit(pinned({program: versions[package] for program, package in PROGRAMS.items()}))
        site.keadb("up", "--stack", site.name, "--yes")
        after = _started(site)
    site.require_health()
    assert site.leader() == leader
    assert after["patroni"] == before["patroni"]
    assert before["postgresql"][leader] < after["postgresql"][standby] < after["postgresql"][leader]
    first, second, witness = (after["etcd"][host] for host in hosts(site))
    assert max(before["etcd"].values()) < first < second < witness
    for host in hosts(site):
        # The lab's image has a PostgreSQL on every host; the witness's own is only the client.
        theirs = versions.keys() - (set() if host in site.database_hosts else {"postgresql-15"})
        _require_packages(site, host, {name: versions[name] for name in theirs})
    site.keadb("preview", "--stack", site.name, "--expect-no-changes")
    site.keadb("drift", "--stack", site.name)
    assert site.status()["warnings"] == []

    with site.edited(pinned({"postgresql": "15.99-1"})):
        refused = site.keadb("up", "--stack", site.name, "--yes", check=False)
    assert refused.returncode == 1
    have = versions["postgresql-15"]
    assert "postgresql-15: wanted is version 15.99-1, the package sources have" in refused.stdout + refused.stderr
    assert f"(installed: {have})" in refused.stdout + refused.stderr
    site.keadb("up", "--stack", site.name, "--yes")
    assert _started(site) == after
    acknowledged = writer.finish()
    for host in site.database_hosts:
        wait_for(f"{host} to have every acknowledged row", partial(has_all, site, host, set(acknowledged)), 60)
    MEASURED.append(f"PostgreSQL and etcd upgraded: longest write gap {writer.longest_gap():.1f} s, 0 lost")


def test_an_upgrade_by_hand_restarts_nothing_and_is_told(settled: Site, tmp_path_factory: Any) -> None:
    """At night, with apt: the package's own restart is held back, `status` says what is due and how to do it."""
    site, folder = settled, tmp_path_factory.mktemp("newer") / "repository"
    leader = site.leader()
    host = next(name for name in site.database_hosts if name != leader)
    with newer(site.lab, folder, ["patroni"], "+keadb9"):
        before = unit_started(site, host, PATRONI)
        upgrade = "apt-get -qq update && apt-get -qq --yes --allow-change-held-packages install patroni"
        done = site.lab.exec(host, ["sh", "-c", upgrade], timeout=300)
    assert done.returncode == 0, done.stderr
    assert unit_started(site, host, PATRONI) == before
    (warning,) = site.status()["warnings"]
    assert warning.startswith(f"{host}: Patroni runs 4.")
    assert warning.endswith(f"keadb drift --stack {site.name} --restore {host}:bundle:patroni-form")
    told = site.keadb("drift", "--stack", site.name, check=False).stdout
    assert f"{host}:Patroni  Patroni still runs what was there before patroni" in told
    restored = ("--restore", f"{host}:bundle:patroni-form", "--restore", f"{host}:patroni")
    site.keadb("drift", "--stack", site.name, *restored)
    assert unit_started(site, host, PATRONI) > before
    assert site.leader() == leader
    site.wait_until_healthy()
    assert site.status()["warnings"] == []
    site.keadb("drift", "--stack", site.name)


def _started(site: Site) -> dict[str, dict[str, float]]:
    """Return by program and host when each was started."""
    return {
        "etcd": {host: unit_started(site, host, ETCD) for host in hosts(site)},
        "patroni": {host: unit_started(site, host, PATRONI) for host in site.database_hosts},
        "postgresql": {host: server_started(site, host) for host in site.database_hosts},
    }


def _require_packages(site: Site, host: str, versions: Mapping[str, str]) -> None:
    """Demand these versions of what is installed on a host, and that it is held."""
    form = "${Package} ${Version} ${Status}\\n"
    asked = ["dpkg-query", "--show", f"--showformat={form}", *versions]
    rows = [line.split() for line in site.lab.exec(host, asked).stdout.splitlines()]
    assert {row[0]: row[1:] for row in rows} == {
        name: [version, "hold", "ok", "installed"] for name, version in versions.items()
    }
