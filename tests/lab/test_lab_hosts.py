"""The lab itself, without a site on it: hosts, and that nothing is left behind. Quick: seconds each."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab import process
from lab.api import Lab
from tests.lab import lab_hosts
from tests.lab.harness import wait_for
from tests.lab.lab_hosts import DISK_MB, ROOT, answers, command, kill_all, leftovers, supervisors

pytestmark = pytest.mark.lab

state, shared, own = lab_hosts.state, lab_hosts.shared, lab_hosts.own


class TestHosts:
    """Three machines, as far as anybody who comes by SSH can tell."""

    def test_every_host_is_up_and_itself(self, shared: Lab) -> None:
        """Name, address, nothing failed, and PostgreSQL's and etcd's own units not started."""
        for host in shared.hosts:
            assert answers(shared, host.name)
            assert shared.exec(host.name, ["hostname"]).stdout.strip() == host.name
            assert str(host.address) in shared.exec(host.name, ["ip", "-4", "-o", "addr", "show", "host0"]).stdout
            failed = shared.exec(host.name, ["systemctl", "list-units", "--failed", "--plain", "--no-legend"])
            assert failed.stdout == ""
            active = shared.exec(host.name, ["systemctl", "is-active", "etcd", "patroni", "postgresql"])
            assert set(active.stdout.split()) == {"inactive"}

    def test_the_deploy_user_has_the_key_and_sudo(self, shared: Lab) -> None:
        """What `keadb up` starts from; a password opens nothing."""
        host = shared.hosts[0]
        keys = shared.exec(host.name, ["cat", "/home/keadb/.ssh/authorized_keys"]).stdout
        assert keys == shared.spec.deploy_key.with_suffix(".pub").read_text()
        done = shared.exec(host.name, ["runuser", "-u", "keadb", "--", "sudo", "-n", "id", "-u"])
        assert (done.stdout.strip(), done.returncode) == ("0", 0)
        settings = shared.exec(host.name, ["sshd", "-T"]).stdout.splitlines()
        assert "passwordauthentication no" in settings
        assert "permitrootlogin no" in settings

    def test_data_lies_on_a_disk_of_limited_size(self, shared: Lab) -> None:
        """Neither PostgreSQL nor etcd on an overlay; and a disk can be full."""
        for folder in ("/var/lib/postgresql", "/var/lib/etcd"):
            assert shared.exec("db-01", ["findmnt", "-no", "FSTYPE", folder]).stdout.strip() == "ext4"
        owners = shared.exec("db-01", ["stat", "-c", "%U %a", "/var/lib/postgresql", "/var/lib/etcd"]).stdout.split(
            "\n"
        )
        assert owners[:2] == ["postgres 755", "etcd 700"]
        full = shared.exec("db-01", ["dd", "if=/dev/zero", "of=/var/lib/etcd/full", "bs=1M", f"count={DISK_MB}"])
        assert "No space left on device" in full.stderr
        shared.exec("db-01", ["rm", "/var/lib/etcd/full"])

    def test_nothing_outside_can_be_reached(self, shared: Lab) -> None:
        """No route out of the hosts, none out of the namespace."""
        for routes in (shared.exec("db-01", ["ip", "route"]), shared.ns(["ip", "route"])):
            assert "default" not in routes.stdout

    def test_the_namespace_has_its_own_loopback(self, shared: Lab) -> None:
        """Up, because the engine talks to itself there; and not the machine's."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            probe = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)"
            done = shared.ns([sys.executable, "-c", probe, port])
        assert "ConnectionRefusedError" in done.stderr

    def test_up_again_changes_nothing(self, shared: Lab) -> None:
        """Neither processes nor files."""
        before = shared.status(), shared.spec.record.read_text(), shared.spec.site_file.stat().st_mtime_ns
        said: list[str] = []
        shared.up(disk_mb=DISK_MB, with_secrets=False, say=said.append)
        assert said == ["lab t1 is up already"]
        assert (shared.status(), shared.spec.record.read_text(), shared.spec.site_file.stat().st_mtime_ns) == before


class TestCommandLine:
    """As people use it."""

    def test_exec_passes_input_output_and_exit_code_through(self, shared: Lab) -> None:
        """And every argument as it is."""
        done = command(
            "exec", "--name", "t1", "db-02", "--", "sh", "-c", 'cat; echo "$1"; exit 7', "-", "a  'b", stdin="in\n"
        )
        assert (done.returncode, done.stdout) == (7, "in\na  'b\n")
        assert shared.address("db-02")

    def test_ns_runs_in_the_labs_network(self, shared: Lab) -> None:
        """With the machine's own programs."""
        done = command("ns", "--name", "t1", "--", "ip", "-o", "-4", "addr", "show", "br0")
        assert "172.30.30.1/24" in done.stdout
        assert shared.hosts

    def test_status_is_a_table_and_an_exit_code(self, shared: Lab) -> None:
        """Everything is there, or it isn't."""
        done = command("status", "--name", "t1")
        assert done.returncode == 0
        assert done.stdout.count("running") == 3
        shared.cut("witness")
        done = command("status", "--name", "t1")
        shared.heal("witness")
        assert done.returncode == 1
        assert "cut" in done.stdout


class TestNothingIsLeft:
    """Whatever happened before."""

    def test_up_after_everything_was_killed_keeps_the_disks(self, own: Lab) -> None:
        """The machine's memory pressure took all of it; the data is still there."""
        own.exec("db-01", ["sh", "-c", "echo kept >/var/lib/postgresql/note; sync"])
        key = own.spec.deploy_key.read_bytes()
        kill_all(own)
        own.up(disk_mb=DISK_MB, with_secrets=False)
        assert own.exec("db-01", ["cat", "/var/lib/postgresql/note"]).stdout == "kept\n"
        assert own.spec.deploy_key.read_bytes() == key
        assert all(answers(own, host.name) for host in own.hosts)

    def test_up_after_the_supervisor_alone_was_killed(self, own: Lab) -> None:
        """Its containers still run, and hold the disks: they must go first."""
        os.kill(process.load(own.spec.record)["supervisor"].pid, signal.SIGKILL)
        own.up(disk_mb=DISK_MB, with_secrets=False)
        assert all(answers(own, host.name) for host in own.hosts)
        assert supervisors(own) == 1

    def test_down_leaves_nothing(self, own: Lab) -> None:
        """Processes, namespace, mounts, loop devices, control groups, files; and a second time is no error."""
        assert leftovers(own)
        own.down()
        assert leftovers(own) == []
        own.down()

    def test_down_after_a_kill_leaves_nothing(self, own: Lab) -> None:
        """The same, without anybody to ask."""
        kill_all(own)
        own.down()
        assert leftovers(own) == []

    def test_down_with_a_frozen_host_leaves_nothing(self, own: Lab) -> None:
        """Whoever stands still can still be ended; and `up` before that doesn't wait for it in vain."""
        own.freeze("db-01")
        said: list[str] = []
        own.up(disk_mb=DISK_MB, with_secrets=False, say=said.append)
        assert said[0] == "t2-kea-db-01: frozen; not waiting for it (keadb lab thaw t2-kea-db-01)"
        own.down()
        assert leftovers(own) == []

    def test_down_without_a_state_folder_leaves_nothing(self, own: Lab) -> None:
        """Someone removed it by hand while the lab ran."""
        subprocess.run(["rm", "-rf", str(own.spec.folder)], check=True)
        own.down()
        assert leftovers(own) == []

    def test_down_keeping_disks(self, own: Lab) -> None:
        """A lab put aside for the night."""
        own.exec("witness", ["sh", "-c", "echo kept >/etc/note; sync"])
        own.down(keep_disks=True)
        assert leftovers(own) == [f"folder {own.spec.folder}"]
        own.up(disk_mb=DISK_MB, with_secrets=False)
        assert own.exec("witness", ["cat", "/etc/note"]).stdout == "kept\n"

    def test_up_cut_off_at_any_moment(self, state: Path) -> None:
        """Killed early or late, the next `up` works and `down` leaves nothing."""
        assert state
        lab = Lab("t3")
        argv = [sys.executable, "-m", "lab", "up", "--name", "t3", "--disk-mb", str(DISK_MB), "--no-secrets"]
        for seconds in (0.2, 0.3, 0.4, 0.5, 0.7, 1.0):
            child = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=seconds)
            child.kill()
            child.wait()
        lab.up(disk_mb=DISK_MB, with_secrets=False)
        assert all(answers(lab, host.name) for host in lab.hosts)
        lab.down()
        assert leftovers(lab) == []


class TestSideBySide:
    """Names keep labs apart, although addresses are the same."""

    def test_two_labs_do_not_see_each_other(self, shared: Lab, own: Lab) -> None:
        """Same addresses, other hosts; one's end is nothing to the other."""
        for lab in (shared, own):
            name = "import socket,sys; print(sys.argv)"
            assert lab.exec("db-01", ["hostname"]).stdout.strip() == f"{lab.spec.name}-kea-db-01"
            assert lab.ns([sys.executable, "-c", name]).returncode == 0
        shared.cut("db-01")
        assert answers(own, "db-01")
        shared.heal("db-01")
        wait_for("the host's address to be back", lambda: answers(shared, "db-01"))
        own.down()
        assert leftovers(own) == []
        assert all(answers(shared, host.name) for host in shared.hosts)

    def test_a_second_up_at_the_same_time_waits(self, own: Lab) -> None:
        """Two people, one lab."""
        own.down()
        argv = [sys.executable, "-m", "lab", "up", "--name", "t2", "--disk-mb", str(DISK_MB), "--no-secrets"]
        both = [subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [child.communicate(timeout=60)[1] for child in both]
        assert [child.returncode for child in both] == [0, 0]
        assert sum("is up already" in text for text in said) == 1
