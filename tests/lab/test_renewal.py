"""New certificates while everything runs: every port shows them, nobody is cut, nothing is restarted."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from keadb import clients
from tests.lab import test_way
from tests.lab.harness import MEASURED, Site, wait_for
from tests.lab.test_tls import PORTS
from tests.lab.tls_authority import Pair
from tests.lab.tls_lab import ask, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.test_way import Clients

pytestmark = pytest.mark.lab
on_the_way = test_way.on_the_way

STAYING = """
import sys, psycopg
connections = [psycopg.connect(conninfo, autocommit=True) for conninfo in sys.argv[1:]]
for line in sys.stdin:
    print(*(c.execute("SELECT 1").fetchone()[0] for c in connections), flush=True)
"""
"""Clients that log in once: each line of stdin is a question to all of them."""
UNITS = ("keadb-etcd", "patroni", "pgbouncer", "haproxy", "keepalived")
HAPROXY_READ = """
worker=$(pgrep --newest --exact haproxy) && ps -o etimes= -p "$worker"
echo $(($(date +%s) - $(stat -c %Y /etc/haproxy/tls/client.crt)))
"""
"""Seconds since HAProxy's newest process began, and since its certificate was written."""


def _main_processes(site: Site) -> dict[str, str]:
    """Return the main process of every service of every host; with PostgreSQL's start and its standby's receiver."""
    found = {}
    for host in site.lab.hosts:
        for unit in UNITS:
            done = site.lab.exec(host.name, ["systemctl", "show", "--property=MainPID", "--value", unit])
            found[f"{host.name} {unit}"] = done.stdout.strip()
    for name in site.database_hosts:
        query = "SELECT pg_postmaster_start_time(), (SELECT pid FROM pg_stat_wal_receiver)"
        found[f"{name} postgresql"] = site.sql(name, query, "postgres")
    return found


def _of_port(site: Site, name: str, pair: Pair) -> x509.Certificate:
    """Return the certificate that one port shows to the first host."""
    question = PORTS[name].question(site) | {"cert": str(pair.cert), "key": str(pair.key)}
    heard = ask(site, site.database_hosts[0], **question)
    assert heard["went_on"], (name, heard)
    return x509.load_der_x509_certificate(bytes.fromhex(heard["shown"]))


def _shown(site: Site, pair: Pair) -> dict[str, x509.Certificate]:
    """Return the certificate that each port of the first host and of the virtual address shows."""
    return {name: _of_port(site, name, pair) for name in PORTS}


@pytest.fixture
def staying(settled: Site) -> Iterator[subprocess.Popen[str]]:
    """Clients that stay: one by the write port, one by the read port, one at the leader itself."""
    data = test_way._data(settled)
    user, secret = settled.login("read")
    ways = (clients.conninfo(data), clients.read_conninfo(data), clients.direct_conninfo(data))
    process = subprocess.Popen(
        [
            *("nsenter", f"--net=/run/netns/keadb-{settled.name}", sys.executable, "-c", STAYING),
            *(f"{way} user={user} sslrootcert={test_way._ca(settled)}" for way in ways),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PGPASSWORD=settled.secrets()[secret]),
    )
    try:
        assert _answers(process) == "1 1 1"
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def _answers(process: subprocess.Popen[str]) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def _haproxy_has_read_it(site: Site, host: str) -> bool:
    running, written = map(int, site.lab.exec(host, ["sh", "-c", HAPROXY_READ]).stdout.split())
    return running <= written + 1  # both are rounded


def test_new_certificates_reach_every_port_and_cut_nobody(
    settled: Site, on_the_way: Clients, staying: subprocess.Popen[str], tmp_path: Path
) -> None:
    """A bumped epoch under load: each port shows a certificate of the new day, clients and processes are the same."""
    pair = Pair(tmp_path / "etcd.crt", tmp_path / "etcd.key")
    for path in (pair.cert, pair.key):
        path.touch(mode=0o600)
        path.write_text(read(settled, settled.database_hosts[0], f"/var/lib/keadb/tls/{path.name}"))
    before, processes, errors = _shown(settled, pair), _main_processes(settled), on_the_way.errors()
    epoch: list[dt.date] = []

    def renew(data: dict[str, Any]) -> None:
        epoch.append(dt.date.fromisoformat(data["tls"]["epoch"]) + dt.timedelta(days=1))
        data["tls"]["epoch"] = epoch[0].isoformat()

    settled.edit(renew)
    settled.keadb("up", "--stack", settled.name, "--yes")
    # Patroni hands a reload on to PostgreSQL in its next loop.
    wait_for(
        "PostgreSQL with its new certificate",
        lambda: _of_port(settled, "PostgreSQL", pair).not_valid_before_utc.date() == epoch[0],
        60,
    )
    after = _shown(settled, pair)
    for name, certificate in after.items():
        assert certificate.not_valid_before_utc.date() == epoch[0], name
        assert certificate.not_valid_before_utc > before[name].not_valid_before_utc, name
        assert certificate.public_key() == before[name].public_key(), name
    for host in settled.database_hosts:
        wait_for(f"HAProxy on {host} with its new certificate", partial(_haproxy_has_read_it, settled, host), 10)
    on_the_way.go_on(60)
    assert on_the_way.errors() == errors
    assert _answers(staying) == "1 1 1"
    assert _main_processes(settled) == processes
    settled.require_health()
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    MEASURED.append("certificates renewed: 0 failed attempts")
