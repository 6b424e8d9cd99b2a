"""Who may log in: every role, from every kind of place, by every way, to every database."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.model import BRIDGE, KEA_SERVER, SUBNET, VIP
from tests.lab.tls_lab import in_network, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.harness import Site

pytestmark = pytest.mark.lab
STRANGER = SUBNET[99]
"""An address of the site's own subnet that nobody has named."""
DATABASES = ("kea", "postgres", "template1", "replication", "pgbouncer")
"""Every database; replication is none, but rules treat it like one, and pgbouncer is the console of PgBouncer."""
BY_CERTIFICATE = ("replicator", "rewinder", "pooler")
UNKNOWN = ("kea_write_a", "kea_admin_a", "kea_monitor_a")
"""Logins of roles that a later version makes: nobody yet."""
OUTSIDER = "outsider"
"""A login with a password that is no member of Kea's roles."""
PASSWORDS = {"kea_owner_a": "kea_owner_a_password", "kea_read_a": "kea_read_a_password"}
CLOSED = {"kea_owner_b": "kea_owner_b_password", "kea_read_b": "kea_read_b_password"}
"""The spare of each pair: its password is known, it is not open."""

OWNER, READER = ("kea_owner_a", "kea", "kea_owner"), ("kea_read_a", "kea", "kea_read_a")
KEA = {OWNER, READER}
PROXIES = ("write", "read", "past")
"""The ways through the proxies: the virtual address's two ports, and a node's own read port."""
ALLOWED: dict[tuple[str, str], set[tuple[str, str, str]]] = {
    **{(source, way): KEA for source in ("Kea server", "client", "node", "witness") for way in PROXIES},
    # The proxies stand on the nodes.
    ("node", "pooler"): KEA,
    ("node", "node"): {
        *KEA,
        ("replicator", "replication", "replicator"),
        ("rewinder", "postgres", "rewinder"),
    },
    ("witness", "node"): KEA,
    ("client", "node"): KEA,
    ("loopback", "node"): {*KEA, ("replicator", "replication", "replicator"), ("pooler", "kea", "pooler")},
}
"""Who gets in: by source and way the login, the database, and the role that it then acts as. Nobody else does."""


@contextlib.contextmanager
def _standing(site: Site, number: int) -> Iterator[list[str]]:
    """Have a place with an address of its own on the lab's network; give what runs a command there."""
    name, cable = f"keadb-{site.name}-{number}", f"vs-{number}"

    def ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True)

    ip("netns", "delete", name, check=False)
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", cable, "netns", site.lab.spec.netns)
        ip("-n", site.lab.spec.netns, "link", "set", cable, "master", BRIDGE, "up")
        ip("-n", name, "addr", "add", f"{SUBNET[number]}/{SUBNET.prefixlen}", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        yield ["ip", "netns", "exec", name]
    finally:
        ip("netns", "delete", name)


@pytest.fixture(scope="module")
def sources(site: Site) -> Iterator[dict[str, list[str]]]:
    """What runs a command at each kind of place."""
    site.wait_until_healthy()
    nodes = site.database_hosts
    with contextlib.ExitStack() as stack:
        yield {
            "Kea server": stack.enter_context(_standing(site, int(KEA_SERVER) - int(SUBNET[0]))),
            "stranger": stack.enter_context(_standing(site, int(STRANGER) - int(SUBNET[0]))),
            "client": site.lab.ns_argv([]),
            "node": in_network(site, nodes[1]),
            "loopback": in_network(site, nodes[0]),
            "witness": in_network(site, f"{site.name}-kea-witness"),
        }


@pytest.fixture(scope="module")
def logins(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Every login with what it logs in with: passwords, and the certificates of a node, wherever they are used."""
    folder, node = tmp_path_factory.mktemp("logins"), site.database_hosts[0]
    trust: dict[str, Any] = {
        "sslmode": "verify-full",
        "sslrootcert": str(_kept(folder, "ca.crt", read(site, node, "/etc/keadb/tls/ca.crt"))),
        "host": f"kea-db-primary.{site.name}.example.com",
        # No certificate of whoever runs this.
        "sslcert": "/nonexistent",
    }
    secrets = site.secrets()
    found = {name: trust | {"password": secrets[secret]} for name, secret in (PASSWORDS | CLOSED).items()}
    found |= {name: trust | {"password": "x" * 24} for name in (*UNKNOWN, OUTSIDER, "postgres")}
    for name in BY_CERTIFICATE:
        cert, key = (
            str(_kept(folder, f"{name}.{kind}", read(site, node, f"/var/lib/keadb/tls/{name}.{kind}")))
            for kind in ("crt", "key")
        )
        found[name] = trust | {"sslcert": cert, "sslkey": key}
    leader = site.leader()
    assert leader
    site.sql(leader, f"DROP ROLE IF EXISTS {OUTSIDER}; CREATE ROLE {OUTSIDER} LOGIN PASSWORD '{'x' * 24}'")
    yield found
    site.sql(site.leader() or leader, f"DROP ROLE {OUTSIDER}")


def _kept(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _places(site: Site, source: str) -> dict[str, tuple[str, int]]:
    node = str(site.lab.address(site.database_hosts[0]))
    if source == "loopback":
        return {"node": ("127.0.0.1", 5432)}
    vip = str(VIP)
    return {
        "write": (vip, 5432),
        "read": (vip, 5433),
        "past": (node, 5433),
        "pooler": (node, 6432),
        "node": (node, 5432),
    }


def _outcomes(
    site: Site,
    source: str,
    argv: list[str],
    logins: dict[str, dict[str, Any]],
    databases: tuple[str, ...] = DATABASES,
) -> list[list[str]]:
    done = subprocess.run(
        [*argv, sys.executable, str(Path(__file__).with_name("access_attempts.py"))],
        input=json.dumps({"places": _places(site, source), "logins": logins, "databases": databases}),
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    return [[source, *outcome] for outcome in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def attempts(
    site: Site, sources: dict[str, list[str]], logins: dict[str, dict[str, Any]]
) -> list[tuple[str, str, str, str, str]]:
    """Every attempt: source, way, login, database, outcome."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda item: _outcomes(site, item[0], item[1], logins), sources.items())
    return [(a, b, c, d, e) for outcomes in found for a, b, c, d, e in outcomes]


@pytest.mark.parametrize("way", [*PROXIES, "pooler", "node"])
@pytest.mark.parametrize("source", ["Kea server", "client", "node", "witness", "loopback", "stranger"])
def test_exactly_those_get_in_who_may(source: str, way: str, attempts: list[tuple[str, str, str, str, str]]) -> None:
    """Every login to every database from there by that way: who gets in, and as whom, is the table, no more."""
    here = [attempt[2:] for attempt in attempts if attempt[:2] == (source, way)]
    got_in = {(login, database, said.removeprefix("in as ")) for login, database, said in here if said[:3] == "in "}
    assert got_in == ALLOWED.get((source, way), set())
    if source != "loopback" or way == "node":
        assert len(here) == (len(PASSWORDS) + len(CLOSED) + len(UNKNOWN) + len(BY_CERTIFICATE) + 2) * len(DATABASES)
    # Refused for who they are: one that only failed would be taken for a refusal.
    reasons = {said for _, _, said in here if said[:3] != "in "}
    assert [said for said in reasons if not any(words in said for words in REFUSALS)] == []


REFUSALS = (
    "pg_hba.conf rejects connection",
    "no pg_hba.conf entry",
    "password authentication failed",
    "authentication failed",
    "no authentication method",
    # In a pooler's words: PostgreSQL gave it no verifier for that login.
    "no such user",
    "no such database",
    "not permitted",
    "not currently permitted to log in",
    # The proxies cut strangers off before anything is said; a firewall does not even do that.
    "server closed the connection unexpectedly",
    "Connection reset by peer",
    "not reached",
)


def test_channel_binding_is_had_where_postgresql_itself_answers(
    site: Site, sources: dict[str, list[str]], logins: dict[str, dict[str, Any]]
) -> None:
    """PgBouncer 1.24 offers none: a version that does makes this fail, and then docs/tls.md can ask for it."""
    bound = {"kea_read_a": logins["kea_read_a"] | {"channel_binding": "require"}}
    found = {way: said for _, way, _, _, said in _outcomes(site, "client", sources["client"], bound, ("kea",))}
    assert found["node"] == "in as kea_read_a"
    for way in PROXIES:
        assert "channel binding is required, but server did not offer" in found[way]


DENIED = {
    "kea_read_a": (
        "INSERT INTO hosts (dhcp_identifier, dhcp_identifier_type) VALUES ('x', 0)",
        "UPDATE hosts SET hostname = 'x'",
        "DELETE FROM hosts",
        "TRUNCATE hosts",
        "SELECT 1 FROM lease4",
        "CREATE TABLE public.mine ()",
        "CREATE TABLE kea_ext.mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "SET ROLE kea_owner",
        "SET SESSION AUTHORIZATION postgres",
        "SELECT * FROM kea_ext.pooler_login('kea_owner_a')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY hosts TO PROGRAM 'true'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        "ALTER SYSTEM SET fsync = off",
    ),
    "kea_owner_a": (
        "SET ROLE postgres",
        "CREATE ROLE mine LOGIN",
        "ALTER ROLE kea_read_a PASSWORD 'x'",
        "CREATE DATABASE mine",
        "SELECT * FROM kea_ext.pooler_login('kea_read_a')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY hosts TO PROGRAM 'true'",
        "ALTER SYSTEM SET fsync = off",
    ),
    "pooler": (
        "SELECT 1 FROM public.hosts",
        "SELECT rolpassword FROM pg_authid",
        "CREATE TABLE public.mine ()",
        "SET ROLE kea_read",
    ),
}
"""What each login may not do once it is in."""
PERMITTED = {
    "kea_read_a": "SELECT count(*) >= 0 FROM hosts",
    "kea_owner_a": "WITH one AS (DELETE FROM hosts WHERE false RETURNING 1) SELECT count(*) = 0 FROM one",
    "pooler": "SELECT count(*) = 1 FROM kea_ext.pooler_login('kea_read_a')",
}
"""And something that it may, in the same way."""
STATEMENTS = """
import json, sys, psycopg
given = json.load(sys.stdin)
with psycopg.connect(**given["settings"], autocommit=True) as connection:
    print(json.dumps(connection.execute(given["permitted"]).fetchone()[0]))
    for statement in given["denied"]:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(statement)
            print(json.dumps("done"))
        except psycopg.errors.ActiveSqlTransaction:
            try:  # cannot be taken back: nobody may do it anyway
                connection.execute(statement)
                print(json.dumps("done"))
            except psycopg.Error as error:
                print(json.dumps(f"{error.sqlstate} {error}"))
        except psycopg.Error as error:
            print(json.dumps(f"{error.sqlstate} {error}"))
"""


@pytest.mark.parametrize("login", DENIED)
def test_rights_end_where_they_should(
    login: str, site: Site, sources: dict[str, list[str]], logins: dict[str, dict[str, Any]]
) -> None:
    """On the leader, as a client or (the pooler's own role) as the pooler: 42501 is "insufficient privilege"."""
    leader = site.leader()
    assert leader
    way = ("loopback", "127.0.0.1", 5432) if login == "pooler" else ("client", str(VIP), 5432)
    argv = in_network(site, leader) if login == "pooler" else sources[way[0]]
    settings = {"user": login, "dbname": "kea", "hostaddr": way[1], "port": way[2], **logins[login]}
    done = subprocess.run(
        [*argv, sys.executable, "-c", STATEMENTS],
        input=json.dumps({"settings": settings, "permitted": PERMITTED[login], "denied": DENIED[login]}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    permitted, *denied = [json.loads(line) for line in done.stdout.splitlines()] or [done.stderr]
    assert permitted is True, done.stderr
    allowed = {statement: said for statement, said in zip(DENIED[login], denied, strict=True) if said[:5] != "42501"}
    assert allowed == {}
