"""Faults of the drill: on which host each is put and taken back, and that whatever is left of one is healed."""

from __future__ import annotations

import subprocess
from typing import Any, cast

import pytest

from lab.api import Lab
from ops.drill_faults import FAULTS, Scene, heal_everything
from ops.drill_record import Places

BEFORE = Places(leader="db-02", sync_standby="db-01", vip="db-01", etcd_leader="witness")
RUNNING = {"state": "running", "cable": "plugged"}


class FakeLab:
    """Notes which lever was used on which host."""

    def __init__(self, states: dict[str, dict[str, str]] | None = None) -> None:
        self.used: list[tuple[Any, ...]] = []
        self.states = states or {}

    def __getattr__(self, lever: str) -> Any:
        def use(*arguments: Any, **_more: Any) -> None:
            self.used.append((lever, *arguments))

        return use

    def status(self) -> dict[str, dict[str, str]]:
        """Return what the hosts are in."""
        return self.states

    def exec(self, host: str, argv: list[str], **_more: Any) -> subprocess.CompletedProcess[str]:
        """Note a command."""
        self.used.append(("exec", host, *argv))
        return subprocess.CompletedProcess(argv, 0, stdout="4711\n", stderr="")


def _scene(lab: FakeLab, *, run: int = 1) -> Scene:
    return Scene(
        lab=cast("Lab", lab),
        before=BEFORE,
        databases=("db-01", "db-02"),
        etcd=("db-01", "db-02", "witness"),
        witness="witness",
        run=run,
        seed=1,
        switch_over=lambda leader: lab.used.append(("switch over", leader)),
    )


@pytest.mark.parametrize(
    ("name", "made", "taken_back"),
    [
        ("switchover", [("switch over", "db-02")], None),
        ("leader-power-off", [("power_off", "db-02")], [("power_on", "db-02")]),
        ("standby-power-off", [("power_off", "db-01")], [("power_on", "db-01")]),
        ("vip-power-off", [("power_off", "db-01")], [("power_on", "db-01")]),
        ("witness-power-off", [("power_off", "witness")], [("power_on", "witness")]),
        ("leader-link-cut", [("cut", "db-02")], [("heal", "db-02")]),
        ("leader-silent-cut", [("cut", "db-02", "all")], [("heal", "db-02")]),
        ("leader-one-way-loss", [("cut", "db-02", "sent")], [("heal", "db-02")]),
        ("leader-frozen", [("freeze", "db-02")], [("thaw", "db-02")]),
        ("disk-full", [("fill_disk", "db-02")], [("free_disk", "db-02")]),
    ],
)
def test_levers_are_used_on_the_right_host(
    name: str, made: list[tuple[str, ...]], taken_back: list[tuple[str, ...]] | None
) -> None:
    """And on no other."""
    lab = FakeLab()
    scene, fault = _scene(lab), FAULTS[name]
    target = fault.target(scene)
    assert target is not None
    fault.make(scene, target)
    assert lab.used == made
    lab.used.clear()
    if fault.take_back is not None:
        fault.take_back(scene, target)
    assert lab.used == (taken_back or [])


@pytest.mark.parametrize(
    ("name", "host", "words"),
    [
        ("postgres-killed", "db-02", ["kill -KILL 4711"]),
        ("patroni-killed", "db-02", ["--signal=KILL --kill-whom=main patroni"]),
        ("pgbouncer-killed", "db-02", ["--signal=KILL --kill-whom=all pgbouncer"]),
        ("haproxy-killed", "db-01", ["--signal=KILL --kill-whom=all haproxy"]),
        ("keepalived-killed", "db-01", ["--signal=KILL --kill-whom=all keepalived"]),
        ("etcd-killed", "witness", ["--signal=KILL --kill-whom=all keadb-etcd"]),
        ("patroni-stopped", "db-02", ["--signal=STOP --kill-whom=main patroni"]),
    ],
)
def test_processes_are_met_where_they_matter(name: str, host: str, words: list[str]) -> None:
    """Patroni's unit also holds PostgreSQL, so of it only the main process is meant."""
    lab = FakeLab()
    scene, fault = _scene(lab), FAULTS[name]
    assert fault.target(scene) == host
    fault.make(scene, host)
    assert {used[1] for used in lab.used} == {host}
    assert " ".join(lab.used[-1][2:]).endswith(words[0])


def test_packets_are_lost_in_both_directions_in_turn() -> None:
    """So that two runs have seen both."""
    for run, packets in ((1, "sent"), (2, "received"), (3, "sent")):
        lab = FakeLab()
        FAULTS["leader-one-way-loss"].make(_scene(lab, run=run), "db-02")
        assert lab.used == [("cut", "db-02", packets)]


def test_the_stock_of_wal_files_is_used_up_in_every_second_run() -> None:
    """Without that a full disk only keeps tables from growing."""
    for run, commands in ((1, 0), (2, 1), (3, 0)):
        lab = FakeLab()
        FAULTS["disk-full"].make(_scene(lab, run=run), "db-02")
        assert lab.used[0] == ("fill_disk", "db-02")
        assert ["pg_switch_wal" in " ".join(used) for used in lab.used[1:]] == [True] * commands


def test_a_quorum_is_lost_and_the_same_members_come_back() -> None:
    """Which two is left to chance, another time another two, and never waits for a quorum that isn't there."""
    pairs = set()
    for run in range(1, 20):
        lab = FakeLab()
        scene, fault = _scene(lab, run=run), FAULTS["etcd-quorum-lost"]
        assert fault.target(scene) is None
        fault.make(scene, "")
        stopped = [used[1] for used in lab.used]
        assert len(set(stopped)) == 2
        assert all(used[2:] == ("systemctl", "stop", "keadb-etcd") for used in lab.used)
        lab.used.clear()
        assert fault.take_back is not None
        fault.take_back(scene, "")
        assert [used[1] for used in lab.used] == stopped
        assert all(used[2:] == ("systemctl", "start", "--no-block", "keadb-etcd") for used in lab.used)
        pairs.add(tuple(stopped))
    assert len(pairs) == 3


def test_whatever_a_killed_drill_left_is_taken_back() -> None:
    """By looking at the lab; a host without power is only given power, one that is fine is left alone."""
    lab = FakeLab(
        {
            "db-01": {"state": "frozen", "cable": "loses all"},
            "db-02": {"state": "off", "cable": "cut"},
            "witness": RUNNING,
        }
    )
    assert heal_everything(cast("Lab", lab)) == [
        "db-01: network loses all",
        "db-01: frozen",
        "db-02: network cut",
        "db-02: powered off",
    ]
    levers = [used[:2] for used in lab.used if used[0] not in {"exec", "free_disk"}]
    assert levers == [("heal", "db-01"), ("thaw", "db-01"), ("heal", "db-02"), ("power_on", "db-02")]
    assert {used[1] for used in lab.used if used[0] in {"exec", "free_disk"}} == {"db-01", "witness"}


def test_every_fault_that_lasts_is_taken_back_and_every_other_heals_itself() -> None:
    """A lever or a signal that holds must have its opposite."""
    themselves = {name for name, fault in FAULTS.items() if fault.take_back is None}
    assert themselves == {name for name in FAULTS if name.endswith("-killed")} | {"switchover"}
