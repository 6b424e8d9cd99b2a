"""A writer and a reader in the lab's network, and whether a cluster still has what it acknowledged."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.lab.harness import ROOT, Site, Writer, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def writing(site: Site, folder: Path) -> Iterator[Writer]:
    """Have a writer that has already written; its table is new. ``folder`` gets its files."""
    leader = site.leader()
    assert leader
    site.sql(
        leader,
        "DROP SCHEMA IF EXISTS drill CASCADE; CREATE SCHEMA drill AUTHORIZATION kea_owner; "
        "SET ROLE kea_owner; CREATE TABLE drill.written (id bigint PRIMARY KEY)",
    )
    environment = {"PGPASSWORD": site.secrets()["kea_owner_a_password"]}
    with _client(site, "writer", site.conninfo("kea_owner_a"), folder, environment) as running:
        yield running


@contextlib.contextmanager
def reading(site: Site, folder: Path) -> Iterator[Writer]:
    """Have a reader of single reservations (``keadb lab load``) that has already read, on any node, by any login."""
    secrets = site.secrets()
    environment = {f"KEADB_READ_{letter.upper()}": secrets[f"kea_read_{letter}_password"] for letter in "ab"}
    conninfo = site.conninfo("", target_session_attrs="any").replace(" user= ", " ")
    with _client(site, "reader", conninfo, folder, environment) as running:
        yield running


@contextlib.contextmanager
def _client(site: Site, module: str, conninfo: str, folder: Path, environment: dict[str, str]) -> Iterator[Writer]:
    acks, stop_file = folder / f"{module}.acks", folder / f"{module}.stop"
    for stale in (acks, stop_file):
        stale.unlink(missing_ok=True)
    acks.touch()
    process = subprocess.Popen(
        [
            "nsenter", f"--net=/run/netns/keadb-{site.name}",
            sys.executable, "-m", f"tests.lab.{module}", conninfo, str(acks), str(stop_file),
        ],
        env={**os.environ, **environment},
        cwd=ROOT,
    )  # fmt: skip
    running = Writer(process, acks, stop_file)
    try:
        running.wait_for_more()
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def lost(site: Site, acknowledged: set[int], seconds: float = 60) -> dict[str, set[int]]:
    """Return by host which acknowledged ids it does not have, row by row; a standby has that long to replay them."""
    end = time.monotonic() + seconds
    wait_for("a leader", site.leader, seconds)
    while True:
        missing = {host: acknowledged - _written(site, host) for host in site.database_hosts}
        missing = {host: ids for host, ids in missing.items() if ids}
        if not missing or time.monotonic() > end:
            return missing
        time.sleep(0.5)


def _written(site: Site, host: str) -> set[int]:
    return {int(line) for line in site.sql(host, "SELECT id FROM drill.written").splitlines()}
