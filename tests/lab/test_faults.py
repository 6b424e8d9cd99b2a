"""Faults under a writer: no acknowledged row is lost, and the old leader comes back as sync standby by itself."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.lab.clients import lost
from tests.lab.harness import MEASURED, Site, Writer, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab


def _assert_nothing_lost(site: Site, acknowledged: dict[int, float]) -> None:
    """Look for every acknowledged id, row by row, on both nodes."""
    assert len(acknowledged) > 40
    assert lost(site, set(acknowledged)) == {}


def _report(what: str, writer: Writer, acknowledged: dict[int, float]) -> None:
    MEASURED.append(f"{what}: longest write gap {writer.longest_gap():.1f} s, {len(acknowledged)} ids, 0 lost")


def test_leaders_postgresql_is_killed(settled: Site, writer: Writer) -> None:
    """SIGKILL of the postmaster: somebody takes writes again, in place or on the other node."""
    leader = settled.leader()
    assert leader
    pid = settled.lab.exec(leader, ["head", "-1", "/var/lib/postgresql/15/kea/postmaster.pid"]).stdout.strip()
    settled.lab.exec(leader, ["kill", "-KILL", pid])
    writer.wait_for_more(100)
    acknowledged = writer.finish()
    wait_for("leader and sync standby", settled.healthy, 120)
    _assert_nothing_lost(settled, acknowledged)
    _report("SIGKILL of the leader's PostgreSQL", writer, acknowledged)


@pytest.mark.parametrize(
    ("what", "fault", "mend"),
    [
        ("power-off of the leader's host", lambda lab: lab.power_off, lambda lab: lab.power_on),
        ("network cut of the leader's host", lambda lab: lab.cut, lambda lab: lab.heal),
    ],
)
def test_leaders_host_is_lost(
    settled: Site,
    writer: Writer,
    what: str,
    fault: Callable[..., Callable[..., None]],
    mend: Callable[..., Callable[..., None]],
) -> None:
    """The other node becomes leader; the old one returns as sync standby without anyone's help."""
    old = settled.leader()
    assert old
    fault(settled.lab)(old)
    try:
        writer.wait_for_more(100)
    finally:
        mend(settled.lab)(old)
    new = wait_for("a leader", settled.leader, 60)
    assert new != old
    wait_for("the old leader as sync standby", settled.healthy, 180)
    acknowledged = writer.finish()
    assert settled.leader() == new
    _assert_nothing_lost(settled, acknowledged)
    _report(what, writer, acknowledged)


AHEAD_OF_ALL = """
SET synchronous_commit = local;
CREATE TABLE drill.unseen AS SELECT generate_series(1, 1000) AS id;
SELECT pg_switch_wal(); CHECKPOINT; INSERT INTO drill.unseen SELECT 0; SELECT pg_switch_wal(); CHECKPOINT;
"""
NOTHING_TO_REWIND_BY = """
systemctl stop patroni && cd /var/lib/postgresql/15/kea/pg_wal && ls 0* | sort | head -n -1 | xargs rm -f
"""


def test_an_old_leader_that_cannot_rewind_is_copied_anew_by_up(settled: Site, writer: Writer) -> None:
    """It went on by itself while it was cut off, and the WAL is gone by which it could be rewound."""
    old = settled.leader()
    assert old
    settled.lab.cut(old)
    try:
        settled.sql(old, AHEAD_OF_ALL)
        writer.wait_for_more(100)
        done = settled.lab.exec(old, ["sh", "-c", NOTHING_TO_REWIND_BY])
        assert done.returncode == 0, done.stderr
    finally:
        settled.lab.heal(old)
    settled.lab.exec(old, ["systemctl", "start", "patroni"])
    wait_for("PostgreSQL to say that it cannot follow", partial(_cannot_follow, settled, old), 60)
    seconds = time.monotonic()
    done = settled.keadb("up", "--stack", settled.name, "--yes")
    seconds = time.monotonic() - seconds
    assert f"{old} can follow its leader no more" in done.stderr
    settled.require_health()
    acknowledged = writer.finish()
    _assert_nothing_lost(settled, acknowledged)
    assert settled.sql(old, "SELECT to_regclass('drill.unseen') IS NULL") == "t"
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    MEASURED.append(f"a standby that cannot follow: copied anew in {seconds:.0f} s of up, 0 lost")


def _cannot_follow(site: Site, host: str) -> bool:
    said = site.lab.exec(host, ["journalctl", "--unit=patroni", "--lines=15", "--output=cat"]).stdout
    return "is not in this server's history" in said
