"""Changes under a writer: what needs restarts loses no acknowledged row, and ends with nothing left to do."""

from __future__ import annotations

import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.harness import MEASURED, Site, Writer, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab


def _connections(count: int) -> Callable[[dict[str, Any]], None]:
    def change(site: dict[str, Any]) -> None:
        site.setdefault("postgresql", {})["max_connections"] = count

    return change


def _started(site: Site) -> dict[str, float]:
    """Return when each node's PostgreSQL was started."""
    query = "SELECT extract(epoch FROM pg_postmaster_start_time())"
    return {host: float(site.sql(host, query)) for host in site.database_hosts}


def _pending(site: Site) -> list[list[str]]:
    """Return what each node waits to be restarted for."""
    witness = f"{site.name}-kea-witness"
    said = json.loads(site.lab.exec(witness, ["/usr/lib/keadb/keadb-apply", "status"]).stdout)
    return [member["pending_restart"] for member in said["patroni"]["members"]]


def _in_force(site: Site, count: int) -> None:
    assert [site.sql(host, "SHOW max_connections") for host in site.database_hosts] == [str(count)] * 2
    assert _pending(site) == [[], []]


def _nothing_lost(site: Site, acknowledged: dict[int, float]) -> None:
    """Look for every acknowledged id, row by row, on both nodes."""
    for host in site.database_hosts:
        wait_for(f"{host} to have every acknowledged row", partial(_has_all, site, host, set(acknowledged)), 60)


def _has_all(site: Site, host: str, ids: set[int]) -> bool:
    return ids <= {int(line) for line in site.sql(host, "SELECT id FROM drill.written").splitlines()}


def test_a_limit_goes_up_and_down_again(settled: Site, writer: Writer) -> None:
    """Raised: the standby is restarted first; lowered: the leader. The leader leads on."""
    leader = settled.leader()
    assert leader
    before = int(settled.sql(leader, "SHOW max_connections"))
    standby = next(host for host in settled.database_hosts if host != leader)
    seen = [_started(settled)]
    with settled.edited(_connections(before + 20)):
        settled.keadb("up", "--stack", settled.name, "--yes")
        seen.append(_started(settled))
        assert seen[0][leader] < seen[1][standby] < seen[1][leader]
        _in_force(settled, before + 20)
    settled.keadb("up", "--stack", settled.name, "--yes")
    seen.append(_started(settled))
    assert seen[1][leader] < seen[2][leader] < seen[2][standby]
    _in_force(settled, before)
    assert settled.leader() == leader
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    acknowledged = writer.finish()
    _nothing_lost(settled, acknowledged)
    times = sorted(acknowledged.values())
    gaps = sorted((b - a for a, b in itertools.pairwise(times)), reverse=True)[:3]
    MEASURED.append(
        f"max_connections up and down: longest write gaps {', '.join(f'{g:.1f}' for g in gaps)} s, 0 lost"
    )


def test_switchover_and_back(settled: Site, writer: Writer) -> None:
    """The confirmed command moves the leadership, waits for health, and measures; twice ends where it began."""
    first = settled.leader()
    assert first
    second = next(host for host in settled.database_hosts if host != first)
    for old, new in ((first, second), (second, first)):
        done = settled.keadb("switchover", "--stack", settled.name, "--yes", "--json")
        said = json.loads(done.stdout)
        assert said["leader"] == new
        assert said["problems"] == []
        assert 0 < said["leads_after_seconds"] < said["seconds"]
        assert settled.sql(new, "SELECT pg_is_in_recovery()") == "f"
        assert settled.sql(new, "SELECT application_name, sync_state FROM pg_stat_replication") == f"{old}|sync"
    acknowledged = writer.finish()
    _nothing_lost(settled, acknowledged)
    MEASURED.append(f"switchover and back: longest write gap {writer.longest_gap():.1f} s, 0 lost")
    refused = settled.keadb("reinit", first, "--stack", settled.name, "--yes", check=False)
    assert refused.returncode == 1
    assert f"{first} leads: its data is what the others are copied from" in refused.stderr


def test_a_wiped_standby_copies_itself_again(settled: Site, writer: Writer) -> None:
    """Its database is gone and Patroni is down: the next generation of that host, and one ``up``."""
    leader = settled.leader()
    standby = next(host for host in settled.database_hosts if host != leader)
    wiped = settled.lab.exec(standby, ["sh", "-c", "systemctl stop patroni && rm -rf /var/lib/postgresql/15/kea"])
    assert wiped.returncode == 0, wiped.stderr

    def new_machine(site: dict[str, Any]) -> None:
        host = site["hosts"][standby]
        # Far from what other tests use: it stays in the file.
        host["generation"] = host.get("generation", 1) + 10

    settled.edit(new_machine)
    settled.keadb("up", "--stack", settled.name, "--yes")
    settled.require_health()
    assert settled.leader() == leader
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    acknowledged = writer.finish()
    _nothing_lost(settled, acknowledged)
    MEASURED.append(f"wiped standby: longest write gap {writer.longest_gap():.1f} s, 0 lost")
