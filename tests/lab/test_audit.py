"""``keadb audit`` on running hosts: all pass, each item fails when it is broken on purpose; sandbox, sudo and SSH."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from keadb import versions
from keadb.bundle import APPLIER
from ops import audit
from tests.lab.audit_breakages import AUTHENTICATION, ROUNDS, Round
from tests.lab.harness import wait_for

if TYPE_CHECKING:
    from tests.lab.harness import Site

pytestmark = pytest.mark.lab

FORWARD = """
import asyncio, sys, asyncssh

async def main(address, key):
    async with asyncssh.connect(address, username="keadb", client_keys=[key], known_hosts=None, config=None) as ssh:
        print((await ssh.run("sudo -n %s version >/dev/null && echo in")).stdout.strip())
        try:
            await ssh.open_connection("127.0.0.1", 2379)
        except asyncssh.ChannelOpenError:
            print("refused")

asyncio.run(main(*sys.argv[1:]))
"""


def _audit(site: Site) -> tuple[int, dict[str, Any]]:
    done = site.keadb("audit", "--stack", site.name, "--json", check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def _failed(report: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Return the reasons of what failed, by host and item."""
    assert not report["unreachable"]
    return {(item["host"], item["id"]): item["reasons"] for item in report["items"] if not item["passed"]}


def _host(site: Site, where: str) -> str:
    if where == "witness":
        return f"{site.name}-kea-witness"
    leader = site.leader()
    assert leader
    return leader if where == "leader" else next(host for host in site.database_hosts if host != leader)


def _sh(site: Site, host: str, script: str, stdin: str | None = None) -> str:
    done = site.lab.exec(host, ["sh", "-ec", script], stdin=stdin, timeout=120)
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return str(done.stdout)


def _passes(site: Site) -> bool:
    code, report = _audit(site)
    return code == 0 and not _failed(report)


def test_all_pass_on_a_site_that_was_just_brought_up(settled: Site) -> None:
    """Every item on every host that it is for; nothing in the answer is a secret."""
    code, report = _audit(settled)
    assert _failed(report) == {}
    assert (code, report["passed"]) == (0, True)
    assert {item["id"] for item in report["items"]} == {i.id for group in audit.GROUPS for i in group.items}
    text = json.dumps(report)
    assert [name for name, value in settled.secrets().items() if value in text] == []


@pytest.mark.parametrize("broken", ROUNDS, ids=lambda broken: broken.name)
def test_each_item_fails_when_it_is_broken(settled: Site, broken: Round) -> None:
    """Exactly those that were broken, on that host; and all pass again when it is mended."""
    host = _host(settled, broken.host)
    hosts = settled.database_hosts if broken.everywhere else [host]
    try:
        _sh(settled, host, broken.first + "".join(broken.breaks.values()) + broken.then)
        code, report = _audit(settled)
    finally:
        settled.lab.exec(host, ["sh", "-c", broken.mends], timeout=180)
    found = _failed(report)
    assert set(found) == {(on, item) for on in hosts for item in (*broken.breaks, *broken.also)}, found
    assert all(found.values())
    assert code == 2
    wait_for("a passing audit", lambda: _passes(settled), 120)


def test_etcd_without_logins_fails(settled: Site) -> None:
    """Whoever has a certificate of the site could read and write everything."""
    host, password = _host(settled, "witness"), settled.secrets()["etcd_root_password"]
    try:
        _sh(settled, host, AUTHENTICATION.format("disable"), password + "\n")
        _, report = _audit(settled)
    finally:
        _sh(settled, host, AUTHENTICATION.format("enable"), password + "\n")
    members = [*settled.database_hosts, host]
    assert set(_failed(report)) == {(member, "etcd-login") for member in members}
    settled.wait_until_healthy()
    wait_for("a passing audit", lambda: _passes(settled), 120)


def test_an_old_minor_version_and_a_clock_that_nobody_keeps_fail(
    settled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the running site cannot be made to be: the list, or the site file, asks for more."""
    from ops import audit_around
    from ops.stacks import resolve

    def more(data: dict[str, Any]) -> None:
        data["network"]["ntp"] = ["172.30.30.1"]

    monkeypatch.setattr(audit_around, "MINOR_FLOORS", {15: 99})
    monkeypatch.setitem(versions.FLOORS, "etcd", versions.Floor(version="9", reason="a test"))
    monkeypatch.setattr(audit, "ask", _as_user(settled))
    with settled.edited(more):
        made = audit.look(resolve(settled.name))
    databases, members = settled.database_hosts, [*settled.database_hosts, _host(settled, "witness")]
    assert {(r.host, r.item.id) for r in made.failed} == {
        *((host, "postgresql-minor") for host in databases),
        *((host, item) for host in members for item in ("versions", "clock")),
    }


def _as_user(site: Site) -> Any:
    """Return an ``ask`` that goes over the lab's lever, for a process that is not in the lab's network."""
    from ops.drift import Reply

    async def ask(host: Any, _identity: object, verb: str, request: str, *, seconds: float) -> Reply:
        assert seconds
        done = site.lab.exec(host.name, [APPLIER, verb], stdin=request)
        return Reply(document=json.loads(done.stdout))

    return ask


@pytest.mark.parametrize(
    "command",
    [
        "id",
        "sh -c id",
        "-u postgres psql -c 'select 1'",
        "cat /etc/shadow",
        "systemctl restart patroni",
        f"{APPLIER} --root /tmp apply",
        f"{APPLIER} --lock-wait 1 version",
        f"{APPLIER} version --root /tmp",
        f"{APPLIER} etcd-form",
        f"{APPLIER} run-request /tmp/x.json",
        f"{APPLIER} leave everything",
        f"{APPLIER} 'version version'",
        f"-E LD_PRELOAD=/tmp/x.so {APPLIER} version",
    ],
)
def test_the_deploy_user_may_run_nothing_else(site: Site, command: str) -> None:
    """Not another program, another user, another verb of the applier, or one of its options."""
    done = site.lab.exec(site.database_hosts[0], ["runuser", "-u", "keadb", "--", "sh", "-c", f"sudo -n {command}"])
    assert done.returncode == 1, done.stdout
    assert "password is required" in done.stderr or "not allowed" in done.stderr, done.stderr


def test_the_deploy_users_connection_leads_nowhere(site: Site) -> None:
    """It runs the applier, and opens no way to what listens on the host's loopback."""
    key = str(site.lab.spec.deploy_key)
    address = str(site.lab.address(site.database_hosts[0]))
    done = site.lab.ns([sys.executable, "-c", FORWARD % APPLIER, address, key])
    assert done.stdout.split() == ["in", "refused"], done.stderr


@pytest.mark.parametrize(
    ("unit", "own"),
    [
        ("keadb-etcd", "/var/lib/etcd/keadb"),
        ("patroni", "/var/lib/postgresql/15/kea"),
        ("pgbouncer", "/run/pgbouncer"),
        ("haproxy", "/run/keadb-haproxy"),
        ("keepalived", "/run/keepalived"),
    ],
)
def test_a_service_writes_its_own_folder_only(settled: Site, unit: str, own: str) -> None:
    """Seen from inside its own view of the file system, even as root: /home is empty, the rest is read-only."""
    host = settled.database_hosts[1]
    pid = _sh(settled, host, f"systemctl show --property=MainPID --value {unit}").strip()
    inside = f"nsenter --target {pid} --mount -- "
    for folder in ("/etc", "/usr/bin", "/var/lib/keadb", "/var/lib/dpkg", "/etc/systemd/system", "/root"):
        done = settled.lab.exec(host, ["sh", "-c", f"{inside} touch {folder}/audit-was-here"])
        assert done.returncode != 0, f"{unit} can write {folder}"
        assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr, done.stderr
    assert _sh(settled, host, f"{inside} ls -A /home") == ""
    _sh(settled, host, f"{inside} touch {own}/audit-was-here; rm {own}/audit-was-here")
    status = _sh(settled, host, f"cat /proc/{pid}/status")
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status
