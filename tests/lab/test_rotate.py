"""Rotating logins under a writer: clients move when they can, Patroni moves by itself, nobody is cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.lab.harness import MEASURED, wait_for

if TYPE_CHECKING:
    from tests.lab.harness import Site, Writer

pytestmark = pytest.mark.lab

ETCD_USERS = """
export ETCDCTL_PASSWORD="$(python3 -c "import json; print(json.load(open('$1'))['etcd_root_password'])" 2>/dev/null)"
exec etcdctl --user root --cacert /etc/keadb/tls/ca.crt --cert "$2.crt" --key "$2.key" user list
"""


CLIENT = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for statement in sys.stdin:
        print(connection.execute(statement).fetchone()[0], flush=True)
"""
"""Answers each line of stdin by the first value that the server returns; the password is in the environment."""


def _client(site: Site, user: str, password: str) -> subprocess.Popen[str]:
    """Return a client in the lab's network, which logs in and stays."""
    return subprocess.Popen(
        ["nsenter", f"--net=/run/netns/keadb-{site.name}", sys.executable, "-c", CLIENT, site.conninfo(user)],
        env=dict(os.environ, PGPASSWORD=password),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _may_log_in(site: Site, user: str, password: str) -> bool:
    with _client(site, user, password) as client:
        out, err = client.communicate("SELECT 1\n", timeout=30)
    assert out == "1\n" or "authentication failed" in err, err
    return out == "1\n"


def _etcd_users(site: Site) -> set[str]:
    paths = ["/var/lib/keadb/secrets.json", "/var/lib/keadb/tls/client"]
    done = site.lab.exec(f"{site.name}-kea-witness", ["sh", "-c", ETCD_USERS, "sh", *paths])
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def _starts(site: Site) -> list[str]:
    """Return what a restart of PostgreSQL or a change of its leader would change, node by node."""
    query = "SELECT pg_postmaster_start_time(), pg_is_in_recovery()"
    return [site.sql(host, query) for host in site.database_hosts]


def _patroni_starts(site: Site) -> list[str]:
    show = ["systemctl", "show", "--property=MainPID,NRestarts", "patroni.service", "keadb-etcd.service"]
    return [site.lab.exec(host, show).stdout for host in site.database_hosts]


def _has_all(site: Site, host: str, ids: set[int]) -> bool:
    return ids <= {int(line) for line in site.sql(host, "SELECT id FROM drill.written").splitlines()}


def test_logins_rotate_without_an_interruption(settled: Site, writer: Writer) -> None:
    """Kea's reading login, and Patroni's at etcd, in one run; then the reading one that clients left is closed."""
    old = settled.secrets()
    reader, reader_secret = settled.login("read")
    patroni, _ = settled.login("etcd")
    began = (_starts(settled), _patroni_starts(settled))
    said = []
    for name in ("kea_read", "etcd_patroni"):
        done = settled.keadb("secrets", "rotate", name, "--stack", settled.name, "--yes")
        said.append(done.stdout + done.stderr)
    new = settled.secrets()
    (new_reader, new_reader_secret), (new_patroni, new_patroni_secret) = settled.login("read"), settled.login("etcd")
    assert {n for n in new if new[n] != old[n]} == {new_reader_secret, new_patroni_secret}
    assert not _may_log_in(settled, new_reader, new[new_reader_secret])

    done = settled.keadb("up", "--stack", settled.name, "--yes")
    said.append(done.stdout + done.stderr)
    assert _may_log_in(settled, new_reader, new[new_reader_secret])
    assert _may_log_in(settled, reader, old[reader_secret]), "kept until its clients have moved"
    assert _etcd_users(settled) == {"root", new_patroni}
    assert patroni != new_patroni
    refused = settled.keadb("secrets", "rotate", "kea_read", "--stack", settled.name, "--yes", check=False)
    assert refused.returncode == 1
    assert f"{reader} is still open for clients" in refused.stderr

    session = _client(settled, reader, old[reader_secret])
    assert session.stdin
    assert session.stdout
    session.stdin.write("SELECT session_user\n")
    session.stdin.flush()
    assert session.stdout.readline().strip() == reader
    settled.keadb("secrets", "retire", "kea_read", "--stack", settled.name, "--yes")
    settled.keadb("up", "--stack", settled.name, "--yes")
    assert not _may_log_in(settled, reader, old[reader_secret])
    assert _may_log_in(settled, new_reader, new[new_reader_secret])
    out, _ = session.communicate("SELECT count(*) FROM hosts\n", timeout=30)
    assert out.strip().isdigit(), "a session that was open stays open"

    assert (_starts(settled), _patroni_starts(settled)) == began
    settled.require_health()
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    assert json.loads(settled.keadb("drift", "--stack", settled.name, "--json").stdout)["in_sync"]
    shown = "\n".join(said)
    assert not [name for values in (old, new) for name, value in values.items() if value in shown]
    acknowledged = writer.finish()
    for host in settled.database_hosts:
        wait_for(f"{host} to have every acknowledged row", partial(_has_all, settled, host, set(acknowledged)), 60)
    MEASURED.append(f"logins rotated and retired: longest write gap {writer.longest_gap():.1f} s, 0 lost")
