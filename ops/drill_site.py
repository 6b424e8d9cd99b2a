"""The site that is drilled: asked as ``keadb status`` does, and its rows, as its superuser on each host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from keadb.site import Site
from lab.api import Lab
from ops import drill_measure, status
from ops.cluster import ControlHost
from ops.drill_record import Places
from ops.exits import CommandError
from ops.health import Report, report
from ops.secrets import DEPLOY_KEY
from ops.stacks import Stack

WHOLE_S = 180.0
"""Within which a site must be whole again by itself."""
ROWS_S = 60.0
"""What a standby may need until it has every row."""
TABLES = """
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS drill CASCADE;
CREATE SCHEMA drill AUTHORIZATION kea_owner;
CREATE TABLE drill.probed (host text, id bigint, PRIMARY KEY (host, id));
SET ROLE kea_owner;
CREATE TABLE drill.written (id bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())
"""


@dataclass(kw_only=True)
class Drilled:
    """The site that is drilled, and who is told how it goes."""

    stack: Stack
    site: Site
    lab: Lab
    secrets: dict[str, str] = field(repr=False)
    folder: Path
    """The campaign's folder; logs of a run go into ``logs`` there."""
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.databases = tuple(host.name for host in self.site.database_hosts)
        self.hosts = tuple(self.site.hosts)

    def status(self) -> Report:
        """Ask every host now, as ``keadb status`` does."""
        answers = asyncio.run(status.ask_all(self.site, self.secrets[DEPLOY_KEY]))
        return report(self.stack.name, self.site, answers, now=datetime.now(UTC))

    def sql(self, host: str, statement: str) -> str:
        """Run a statement on a host as its superuser; CommandError when it fails."""
        words = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "kea"]
        done = self.lab.exec(host, words, stdin=statement, timeout=60)
        if done.returncode != 0:
            msg = f"{host}: {statement.strip().splitlines()[-1]}: {done.stderr.strip()}"
            raise CommandError(msg)
        return done.stdout


def places(made: Report) -> Places:
    """Return who has which part, from a site's status."""
    standby = [m["name"] for m in made.patroni.get("members", ()) if m["role"] == "sync_standby"]
    holders = [host for host, said in made.way.items() if said.get("holds_vip")]
    return Places(
        leader=made.patroni.get("leader"),
        sync_standby=standby[0] if standby else None,
        vip=holders[0] if len(holders) == 1 else None,
        etcd_leader=made.etcd.get("leader"),
    )


def wait_until_whole(
    drilled: Drilled, served: Callable[[], bool], seconds: float = WHOLE_S
) -> tuple[Report, float | None]:
    """Wait until the site is healthy in every respect; return its last status, and when (monotonic) it said so.

    None when it was not within the limit. ``served`` is cheap and says whether clients are served: before that hosts
    are not asked.
    """
    end = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if served() or asked > end:
            made = drilled.status()
            if made.exit_code == 0 and served():
                return made, time.monotonic()
            if asked > end:
                return made, None
        time.sleep(0.3)


def macs(drilled: Drilled) -> dict[str, str]:
    """Return each database host by its hardware address."""
    return {
        drilled.lab.exec(host, ["cat", "/sys/class/net/host0/address"]).stdout.strip(): host
        for host in drilled.databases
    }


def tables(drilled: Drilled, leader: str) -> None:
    """Make the drill's tables anew, empty."""
    drilled.sql(leader, TABLES)


def switch_over(drilled: Drilled, leader: str) -> None:
    """Hand over from this leader, as ``keadb switchover`` does; returns when the site is healthy again."""
    ControlHost(drilled.stack).verb(["patroni-switchover", "--leader", leader], lambda _line: None)


def lost_rows(drilled: Drilled, ids: Mapping[str, set[int]], seconds: float = ROWS_S) -> list[int]:
    """Return the acknowledged ids (by table of the schema ``drill``) that a database host does not have.

    A standby has that many seconds to replay them. CommandError when a host cannot be asked.
    """
    end = time.monotonic() + seconds
    while True:
        lost: list[int] = []
        for table, wanted in ids.items():
            found = {
                host: {int(line) for line in drilled.sql(host, f"SELECT id FROM drill.{table}").split()}  # noqa: S608 -- our names
                for host in drilled.databases
            }
            lost += drill_measure.missing(wanted, found)
        if not lost or time.monotonic() > end:
            return sorted(lost)
        time.sleep(0.5)
