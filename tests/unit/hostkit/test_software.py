"""A program that runs what was installed before: told from its process, whoever upgraded the package."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from hostkit import check, software, status
from hostkit.errors import HostError
from hostkit.system import Completed
from keadb.bundle import program_file
from tests.unit.hostkit.fakes import Machine

PID_FILE = "/var/lib/postgresql/15/kea/postmaster.pid"
STARTED = 1_795_430_299


@dataclass
class Host:
    """A machine with a database's programs, and what may happen to them."""

    machine: Machine

    def __post_init__(self) -> None:
        of_patroni = ["patroni", "python3-psycopg2"]
        for files in (
            program_file("patroni", shown="Patroni", unit="patroni.service", packages=of_patroni, interpreted=True),
            program_file("postgresql", shown="PostgreSQL", pid_file=PID_FILE, packages=["postgresql-15"]),
            program_file("etcd", shown="etcd", unit="keadb-etcd.service", packages=["etcd-server"]),
        ):
            for path, file in files.items():
                self.machine.put(path, file.content)
        self.machine.system.packages = {
            "patroni": "4.0.7-3",
            "python3-psycopg2": "2.9-1",
            "postgresql-15": "15.14-1",
            "etcd-server": "3.5.16-4",
        }
        self.machine.system.commands["systemctl"] = self.show
        self.processes = {"patroni.service": "11", "keadb-etcd.service": "12"}
        self.machine.put(PID_FILE, f"13\n/var/lib/postgresql/15/kea\n{STARTED}\n")
        for process, path in (("11", "/usr/bin/python3.13"), ("12", "/usr/bin/etcd"), ("13", "/usr/lib/pg/postgres")):
            self.executable(process, path)
        for name in ("patroni", "python3-psycopg2:amd64", "postgresql-15"):
            self.unpacked(name, STARTED - 1000)

    def show(self, argv: Sequence[str]) -> Completed:
        """What systemd says of a unit's process."""
        assert "--timestamp=unix" in argv
        process = self.processes[argv[-1]]
        since = f"@{STARTED}" if process != "0" else ""
        return Completed(0, f"MainPID={process}\nExecMainStartTimestamp={since}\n", "")

    def executable(self, process: str, path: str) -> None:
        """Let a process run a file."""
        link = self.machine.root / f"proc/{process}/exe"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path)

    def unpacked(self, package: str, when: float) -> None:
        """Let dpkg have unpacked a package at a time."""
        path = f"/var/lib/dpkg/info/{package}.list"
        self.machine.put(path, "")
        os.utime(self.machine.root / path.lstrip("/"), (when, when))

    def newer(self, key: str) -> tuple[str, ...]:
        """What was installed since."""
        return software.newer(self.machine.ctx, key)


@pytest.fixture
def host(machine: Machine) -> Host:
    """Everything runs what is installed."""
    return Host(machine)


def test_what_runs_as_installed_waits_for_nothing(host: Host) -> None:
    assert [host.newer(key) for key in ("etcd", "patroni", "postgresql", "unknown")] == [(), (), (), ()]
    assert list(check._programs(host.machine.ctx)) == []


def test_a_replaced_executable_is_known_by_its_process(host: Host) -> None:
    host.machine.system.packages |= {"postgresql-15": "15.15-1", "etcd-server": "3.5.17-1"}
    host.executable("12", "/usr/bin/etcd (deleted)")
    host.executable("13", "/usr/lib/pg/postgres (deleted)")
    assert host.newer("etcd") == ("etcd-server 3.5.17-1",)
    assert host.newer("postgresql") == ("postgresql-15 15.15-1",)


def test_what_is_interpreted_is_known_by_the_time(host: Host) -> None:
    """Its executable is the interpreter's, whose upgrade is another matter."""
    host.executable("11", "/usr/bin/python3.13 (deleted)")
    assert host.newer("patroni") == ()
    # systemd's time is cut to seconds: what was unpacked within the first may have been there.
    host.unpacked("patroni", STARTED + 0.5)
    assert host.newer("patroni") == ()
    host.unpacked("python3-psycopg2:amd64", STARTED + 60)
    assert host.newer("patroni") == ("python3-psycopg2 2.9-1",)


def test_what_does_not_run_or_is_not_installed_needs_no_restart(host: Host) -> None:
    """It starts with what is there; and without its package it would not come back."""
    host.unpacked("patroni", STARTED + 60)
    host.executable("12", "/usr/bin/etcd (deleted)")
    host.executable("13", "/usr/lib/pg/postgres (deleted)")
    host.processes = dict.fromkeys(host.processes, "0")
    assert (host.newer("patroni"), host.newer("etcd")) == ((), ())
    del host.machine.system.packages["postgresql-15"]
    assert host.newer("postgresql") == ()
    (host.machine.root / PID_FILE.lstrip("/")).unlink()
    host.machine.system.packages["postgresql-15"] = "15.15-1"
    assert host.newer("postgresql") == ()


def test_a_number_that_is_none_of_ours_is_no_process(host: Host) -> None:
    """A file that a crash left, half a file."""
    for text in ("99999\n", "", "\n", "../1\n"):
        host.machine.put(PID_FILE, text)
        assert host.newer("postgresql") == ()


def test_it_is_drift_with_the_way_out(host: Host) -> None:
    """As a restart that is due for a file is: the bundle's step, or the command for PostgreSQL."""
    host.executable("12", "/usr/bin/etcd (deleted)")
    host.executable("13", "/usr/lib/pg/postgres (deleted)")
    told = check.drift(host.machine.ctx)
    waits = "PostgreSQL still runs what was there before postgresql-15 15.14-1 was installed"
    assert not told["in_sync"]
    assert [(i["bundle"], i["kind"], i["name"], i["is"]) for i in told["drift"]] == [
        ("etcd-roll", "program", "etcd", "etcd still runs what was there before etcd-server 3.5.16-4 was installed"),
        (
            "patroni-form",
            "program",
            "PostgreSQL",
            f"{waits}; 'keadb restart --rolling' restarts it",
        ),
    ]


def test_status_has_it_also_when_nothing_answers(host: Host) -> None:
    """Which version runs is then unknown; that the service is down is told by its own part."""
    host.executable("13", "/usr/lib/pg/postgres (deleted)")
    found = status.programs(host.machine.ctx)
    assert found["postgresql"] == {
        "name": "PostgreSQL",
        "installed": {"postgresql-15": "15.14-1"},
        "newer": ["postgresql-15 15.14-1"],
        "running": None,
    }
    assert found["etcd"]["running"] is None


@pytest.mark.parametrize("text", ["{", json.dumps({"format": 1}), json.dumps({"format": 2})])
def test_a_file_that_describes_nothing_is_named(machine: Machine, text: str) -> None:
    machine.put("/etc/keadb/programs/etcd.json", text)
    with pytest.raises(HostError, match=r"/etc/keadb/programs/etcd.json"):
        software.newer(machine.ctx, "etcd")
