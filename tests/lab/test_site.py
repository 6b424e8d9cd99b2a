"""The whole site on the real engine: what is running, and that running it again changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.harness import MEASURED, ROOT, Site, wait_for

pytestmark = pytest.mark.lab


def _from_the_network(site: Site, conninfo: str, password: str, statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement as a client inside the lab's network would, by libpq."""
    script = (
        "import psycopg, sys\n"
        "with psycopg.connect(sys.argv[1]) as connection:\n"
        "    print(connection.execute(sys.argv[2]).fetchone()[0])\n"
    )
    python = ROOT / ".venv" / "bin" / "python"
    return subprocess.run(
        ["nsenter", f"--net=/run/netns/keadb-{site.name}", python, "-c", script, conninfo, statement],
        env=dict(os.environ, PGPASSWORD=password),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_site_is_healthy(settled: Site) -> None:
    """One leader, one streaming sync standby, three etcd members, Kea's schema; the exit code says so."""
    done = settled.keadb("status", "--stack", settled.name, "--json")
    assert done.returncode == 0
    members = json.loads(
        settled.lab.exec(
            f"{settled.name}-kea-witness",
            ["/usr/lib/keadb/keadb-apply", "status"],
        ).stdout
    )["etcd"]
    assert members
    assert {m["role"]: m["state"] for m in settled.members()} == {
        "leader": "running",
        "sync_standby": "streaming",
    }
    leader = settled.leader()
    assert leader
    assert settled.sql(leader, "SELECT version || '.' || minor FROM schema_version") == "22.2"
    assert settled.sql(leader, "SELECT sync_state FROM pg_stat_replication") == "sync"


def test_reservations_are_read_over_tls_only(settled: Site) -> None:
    """The runtime login reads all 2,500 over verified TLS, is refused without TLS, and may not write."""
    reader, secret = settled.login("read")
    password = settled.secrets()[secret]
    counted = _from_the_network(settled, settled.conninfo(reader), password, "SELECT count(*) FROM hosts")
    assert counted.stdout.strip() == "2500", counted.stderr
    clear = _from_the_network(
        settled, settled.conninfo(reader, sslmode="disable"), password, "SELECT count(*) FROM hosts"
    )
    assert clear.returncode
    assert "no encryption" in clear.stderr or "pg_hba.conf" in clear.stderr
    write = _from_the_network(settled, settled.conninfo(reader), password, "DELETE FROM hosts RETURNING host_id")
    assert "permission denied" in write.stderr
    wrong = _from_the_network(settled, settled.conninfo(reader), "not-the-password", "SELECT 1")
    assert "password authentication failed" in wrong.stderr


def test_the_loader_changes_nothing_the_second_time(settled: Site) -> None:
    """Loading again finds every reservation as it should be."""
    leader = settled.leader()
    assert leader
    digest = "SELECT count(*) || md5(string_agg(h::text, '' ORDER BY host_id)) FROM hosts h"
    before = settled.sql(leader, digest)
    settled.keadb("lab", "load", "--name", settled.name)
    assert settled.sql(leader, digest) == before


def _snapshot(site: Site) -> dict[str, str]:
    """Return what a change on any host would alter: files with owner and mode, and when units were started."""
    script = (
        "find /etc /usr/lib/keadb /var/lib/keadb -xdev -type f -printf '%p %U:%G %m ' -exec sha256sum {} \\; | sort; "
        "for u in keadb-etcd patroni chrony ssh; do systemctl show -p ExecMainStartTimestamp $u; done"
    )
    return {h.name: site.lab.exec(h.name, ["sh", "-c", script]).stdout for h in site.lab.hosts}


def test_a_second_up_and_a_preview_change_nothing(settled: Site) -> None:
    """0 changes in the engine, and not a byte on any host."""
    before = _snapshot(settled)
    for command in (["up", "--yes", "--expect-no-changes"], ["preview", "--expect-no-changes"]):
        started = time.monotonic()
        settled.keadb(*command, "--stack", settled.name)
        MEASURED.append(f"{command[0]} without a change: {time.monotonic() - started:.1f} s")
    assert _snapshot(settled) == before


def test_a_preview_from_elsewhere_changes_nothing(settled: Site, tmp_path: Path) -> None:
    """Another checkout, home, user name and umask give the same bytes."""
    checkout = tmp_path / "another checkout"
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    ).stdout
    for name in tracked.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    cache = os.environ.get("KEADB_CACHE") or str(Path.home() / ".cache" / "keadb")
    environment = {
        k: v for k, v in os.environ.items() if k not in {"HOME", "USER", "LOGNAME", "PWD", "OLDPWD", "SSH_AUTH_SOCK"}
    } | {"HOME": str(tmp_path), "USER": "somebody", "LOGNAME": "somebody", "KEADB_CACHE": cache}
    settled.keadb(
        "preview", "--stack", settled.name, "--expect-no-changes",
        env=environment, command=checkout / "bin" / "keadb", cwd=tmp_path, umask=0o077,
    )  # fmt: skip


def _set(section: str, key: str, value: Any) -> Any:
    def change(site: dict[str, Any]) -> None:
        site.setdefault(section, {})[key] = value

    return change


def _shows(site: Site, host: str, value: str) -> bool:
    return site.sql(host, "SHOW log_min_duration_statement") == value


def test_one_parameter_is_one_line_everywhere(settled: Site, tmp_path: Path) -> None:
    """In render, in the preview, and on the hosts: that line in those files, and nothing else."""
    trees = tmp_path / "before", tmp_path / "after"
    settled.keadb("render", "--stack", settled.name, "--out", str(trees[0]))
    settled.keadb("render", "--stack", settled.name, "--out", str(tmp_path / "again"))
    assert subprocess.run(["diff", "-r", trees[0], tmp_path / "again"], check=False).returncode == 0
    before = _snapshot(settled)
    log_setting = _set("postgresql", "parameters", {"log_min_duration_statement": "250ms"})
    with settled.edited(log_setting):
        settled.keadb("render", "--stack", settled.name, "--out", str(trees[1]))
        rendered = subprocess.run(
            ["diff", "-r", "-U0", trees[0], trees[1]], capture_output=True, text=True, check=False
        ).stdout
        changed = [line for line in rendered.splitlines() if line[:1] in "+-" and line[:3] not in {"+++", "---"}]
        assert [line[0] + line[1:].strip(" ,") for line in changed] == [
            '-"log_min_duration_statement": "1s"',
            '+"log_min_duration_statement": "250ms"',
        ], rendered
        (where,) = [line for line in rendered.splitlines() if line.startswith("+++")]
        assert f"/{settled.name}-kea-witness/files/etc/keadb/cluster/patroni.json" in where
        preview = settled.keadb("preview", "--stack", settled.name, "--diff").stdout
        lines = [" ".join(line.split()) for line in preview.splitlines() if " => " in line]
        assert lines[0] == '~ log_min_duration_statement : "1s" => "250ms"'
        # The other one is the digest by which the step that brings it into force knows of it.
        assert [line.split(":")[0] for line in lines[1:]] == [f"~ {settled.name}-kea-witness/patroni-settings"]
        settled.keadb("up", "--stack", settled.name, "--yes")
        for host in settled.database_hosts:
            wait_for(
                f"{host} to have the new value",
                partial(_shows, settled, host, "250ms"),
                60,
            )
        after = _snapshot(settled)
        witness = f"{settled.name}-kea-witness"
        assert {host for host in after if after[host] != before[host]} == {witness}
        moved = set(after[witness].splitlines()) ^ set(before[witness].splitlines())
        assert {line.split(" ")[0] for line in moved} == {
            "/etc/keadb/cluster/patroni.json",
            "/var/lib/keadb/applied/patroni-settings.json",
            "/var/lib/keadb/applied/patroni-converge.json",
        }
    settled.keadb("up", "--stack", settled.name, "--yes")
    assert _snapshot(settled) == before
    for host in settled.database_hosts:
        wait_for(
            f"{host} to be as before",
            partial(_shows, settled, host, "1s"),
            60,
        )
