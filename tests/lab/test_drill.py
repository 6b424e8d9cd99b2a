"""The drill itself, on a real site: one seeded run of six faults, cut off and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from ops.drill_campaign import read_folder
from ops.drill_record import Verdict, What
from tests.lab.harness import KEADB, MEASURED, Site, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from ops.drill_record import Record

pytestmark = pytest.mark.lab
FAULTS = ("switchover", "postgres-killed", "haproxy-killed", "leader-power-off", "etcd-killed", "patroni-stopped")


def _arguments(site: Site, out: Path, *more: str) -> list[str]:
    chosen = [word for fault in FAULTS for word in ("--fault", fault)]
    return ["drill", "--stack", site.name, "--seed", "4", "--out", str(out), *chosen, *more]


def _records(out: Path) -> list[Record]:
    return read_folder(out)[1] if (out / "campaign.json").exists() else []


def test_six_faults_lose_nothing_and_a_cut_campaign_goes_on(settled: Site, tmp_path: Path) -> None:
    """Killed in the middle of its second fault, it heals the lab when it starts again, and does what is left."""
    out = tmp_path / "campaign"
    log = tmp_path / "first.log"
    with log.open("w") as said:
        first = subprocess.Popen([KEADB, *_arguments(settled, out)], stdout=said, stderr=said, start_new_session=True)
    try:
        wait_for("the first run", lambda: len(_records(out)) == 1 or first.poll() is not None, 300)
        wait_for("the second fault", lambda: log.read_text().count("fault on") == 2 or first.poll() is not None, 120)
        assert first.poll() is None, log.read_text()
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kept = _records(out)
    other = settled.keadb(*_arguments(settled, out), "--runs", "2", check=False)
    assert other.returncode == 64
    assert "holds another campaign: runs 1, given 2" in other.stderr
    settled.lab.freeze("witness")  # as another drill might have left it
    done = settled.keadb(*_arguments(settled, out), "--json", check=False)
    assert "kea-witness: frozen" in done.stderr
    records = _records(out)
    assert done.returncode == 0, [record.reasons for record in records]
    assert [run["fault"] for run in json.loads(done.stdout)["runs"]] == [record.fault for record in records]
    assert sorted(record.fault for record in records) == sorted(FAULTS)
    assert records[:1] == kept
    for record in records:
        MEASURED.append(f"drill: {record.fault}: write gap {record.write.longest_s:.1f} s, {record.verdict}")
        _assert_right(record)
    settled.require_health()
    assert settled.lab.status()
    assert {(state["state"], state["cable"]) for state in (settled.lab.status() or {}).values()} == {
        ("running", "plugged")
    }


def _assert_right(record: Record) -> None:
    """Judge by what was recorded, not by the verdict alone."""
    assert record.verdict is not Verdict.WRONG, record.reasons
    assert record.lost == ()
    assert record.two_leaders == 0
    assert record.phases.whole is not None
    assert record.write.acknowledged > 40
    assert record.read.acknowledged > 40
    assert record.phases.fault > 5
    roles = [event for event in record.events if event.what is What.ROLE and event.host == record.before.leader]
    changed = record.after.leader != record.before.leader
    assert changed is (record.stopped_accepting_s is not None)
    if record.fault in {"switchover", "leader-power-off"}:
        assert changed
        assert record.after.sync_standby == record.before.leader
    if record.fault in {"postgres-killed", "leader-power-off"}:
        # The fault was real: that PostgreSQL was seen to be gone, and writers to wait.
        assert "gone" in [event.value for event in roles if event.at >= record.phases.fault]
        assert record.write.longest_s > 0.3
        assert record.write.failed
    if record.fault == "etcd-killed":
        assert record.target == record.before.etcd_leader


def test_ctrl_c_heals_the_lab_first(settled: Site, tmp_path: Path) -> None:
    """In the middle of a fault: the host has its power again when the command has ended."""
    out, log = tmp_path / "stopped", tmp_path / "log"
    # What a shell starts in the background ignores Ctrl-C, and so does all that it starts.
    command = ["env", "--default-signal=INT", str(KEADB), "drill", "--stack", settled.name]
    command += ["--fault", "witness-power-off", "--out", str(out)]
    with log.open("w") as said:
        drill = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        wait_for("the fault", lambda: "fault on" in log.read_text() or drill.poll() is not None, 120)
        wait_for("the host to be off", lambda: _states(settled)[f"{settled.name}-kea-witness"] == "off", 30)
    finally:
        os.killpg(drill.pid, signal.SIGINT)
        code = drill.wait(timeout=120)
    assert code == 130, log.read_text()
    assert "healed: " in log.read_text()
    assert set(_states(settled).values()) == {"running"}
    assert _records(out) == []
    settled.wait_until_healthy()
    time.sleep(1)
    assert not _left_behind(settled)


def _states(site: Site) -> dict[str, str]:
    return {name: state["state"] for name, state in (site.lab.status() or {}).items()}


def _left_behind(site: Site) -> str:
    """Return the clients and probers of a drill that still run, on the hosts or beside them."""
    return "".join(
        site.lab.exec(host, ["sh", "-c", "pgrep -af 'prober of the[ ]drill' | cut -c1-80"]).stdout
        for host in site.database_hosts
    )
