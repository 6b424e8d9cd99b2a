"""The lab itself, without a site on it: hosts, levers, and that nothing is left behind. Quick: seconds each."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import cgroup, process
from lab.api import Lab
from lab.errors import LabError
from tests.lab.harness import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
DISK_MB = 256
BANNER = "import socket,sys; print(socket.create_connection((sys.argv[1], 22), 2).recv(8).decode())"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state root of this run's own: deeper than a socket's name may be long."""
    root = tmp_path_factory.mktemp("s" * 100)
    before = os.environ.get("KEADB_LAB_STATE")
    os.environ["KEADB_LAB_STATE"] = str(root)
    yield root
    if before is None:
        del os.environ["KEADB_LAB_STATE"]
    else:
        os.environ["KEADB_LAB_STATE"] = before


@pytest.fixture(scope="module")
def shared(state: Path) -> Iterator[Lab]:
    """A lab that several tests use; each leaves its hosts running and plugged in."""
    assert state
    lab = Lab("t1")
    lab.down()
    lab.up(disk_mb=DISK_MB, with_secrets=False)
    yield lab
    lab.down()


@pytest.fixture
def own(state: Path) -> Iterator[Lab]:
    """A lab that a test may break."""
    assert state
    lab = Lab("t2")
    lab.down()
    lab.up(disk_mb=DISK_MB, with_secrets=False)
    yield lab
    lab.down()


def answers(lab: Lab, host: str) -> bool:
    """Say whether the host's SSH answers from inside the lab's network."""
    done = lab.ns([sys.executable, "-c", BANNER, str(lab.address(host))])
    return done.stdout.startswith("SSH-2.0-")


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the lab's command line."""
    argv = [sys.executable, "-m", "lab", *arguments]
    return subprocess.run(argv, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def processes(lab: Lab) -> list[int]:
    """Return every process in the lab's control group."""
    found = []
    for path, _folders, _files in os.walk(cgroup.root() / lab.spec.cgroup):
        found += [int(pid) for pid in (Path(path) / "cgroup.procs").read_text().split()]
    return found


def leftovers(lab: Lab) -> list[str]:
    """Return everything of the lab that is still on this machine."""
    spec, found = lab.spec, []
    if (cgroup.root() / spec.cgroup).exists():
        found.append(f"control group {spec.cgroup}")
    if spec.netns_path.exists():
        found.append(f"namespace {spec.netns}")
    if spec.folder.exists():
        found.append(f"folder {spec.folder}")
    devices = Path("/sys/block").glob("loop*/loop/backing_file")
    found += [f"loop device {device}" for device in devices if str(spec.folder) in device.read_text()]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mounts, argv = (folder / "mountinfo").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        if str(spec.folder) in mounts:
            found.append(f"mounts seen by process {folder.name}")
        if f"lab.supervisor\0--name\0{spec.name}\0" in argv:
            found.append(f"supervisor {folder.name}")
    return found


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


class TestLevers:
    """Faults, and their end."""

    def test_power_off_and_on(self, shared: Lab) -> None:
        """All processes go at once, the others stay, the disk stays, and the host comes back the same."""
        identity = ["cat", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/note"]
        shared.exec("db-01", ["sh", "-c", "echo kept >/etc/note; (sleep 600 >/dev/null 2>&1 &) ; sync"])
        before = shared.exec("db-01", identity).stdout
        init = (shared.status() or {})["t1-kea-db-01"]["init"]
        assert shared.power_off("db-01")
        assert process.identify(init) is None
        assert not cgroup.members(f"{shared.spec.cgroup}/db-01")
        assert not answers(shared, "db-01")
        assert answers(shared, "db-02")
        with pytest.raises(LabError, match="t1-kea-db-01 is powered off"):
            shared.exec("db-01", ["true"])
        assert not shared.power_off("db-01")
        assert shared.power_on("db-01")
        assert not shared.power_on("db-01")
        assert shared.exec("db-01", identity).stdout == before
        assert shared.exec("db-01", ["pgrep", "sleep"]).stdout == ""

    def test_a_reboot_comes_back(self, shared: Lab) -> None:
        """As a machine does; a shutdown stays off until it is powered on."""
        identity = ["cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id"]
        before = shared.exec("witness", identity).stdout.split()
        init = (shared.status() or {})["t1-kea-witness"]["init"]
        shared.exec("witness", ["systemctl", "reboot"])
        wait_for(
            "the host's next start", lambda: (shared.status() or {})["t1-kea-witness"]["init"] not in {None, init}
        )
        wait_for("its SSH", lambda: answers(shared, "witness"))
        after = shared.exec("witness", identity).stdout.split()
        assert after[0] != before[0]
        assert after[1] == before[1]
        shared.exec("witness", ["systemctl", "poweroff"])
        wait_for("the host to be off", lambda: (shared.status() or {})["t1-kea-witness"]["state"] == "off")
        assert shared.power_on("witness")
        assert answers(shared, "witness")

    def test_cut_and_heal(self, shared: Lab) -> None:
        """Only the cable: processes go on, and the others still see each other."""
        init = (shared.status() or {})["t1-kea-db-02"]["init"]
        shared.cut("db-02")
        assert not answers(shared, "db-02")
        assert answers(shared, "db-01")
        assert shared.exec("db-02", ["true"]).returncode == 0
        shared.heal("db-02")
        wait_for("the host's address to be back", lambda: answers(shared, "db-02"))
        assert (shared.status() or {})["t1-kea-db-02"]["init"] == init

    def test_a_cut_host_comes_back_cut(self, shared: Lab) -> None:
        """Its cable is not its power."""
        shared.cut("db-02")
        shared.power_off("db-02")
        shared.power_on("db-02")
        assert not answers(shared, "db-02")
        shared.heal("db-02")
        shared.power_on("db-02")
        assert answers(shared, "db-02")

    def test_an_unknown_host_is_refused(self, shared: Lab) -> None:
        """With the known ones."""
        with pytest.raises(LabError, match="has no host 'db-03'"):
            shared.power_off("db-03")


class TestNothingIsLeft:
    """Whatever happened before."""

    def test_up_after_everything_was_killed_keeps_the_disks(self, own: Lab) -> None:
        """The machine's memory pressure took all of it; the data is still there."""
        own.exec("db-01", ["sh", "-c", "echo kept >/var/lib/postgresql/note; sync"])
        key = own.spec.deploy_key.read_bytes()
        for pid in processes(own):
            os.kill(pid, signal.SIGKILL)
        own.up(disk_mb=DISK_MB, with_secrets=False)
        assert own.exec("db-01", ["cat", "/var/lib/postgresql/note"]).stdout == "kept\n"
        assert own.spec.deploy_key.read_bytes() == key
        assert all(answers(own, host.name) for host in own.hosts)

    def test_up_after_the_supervisor_alone_was_killed(self, own: Lab) -> None:
        """Its containers still run, and hold the disks: they must go first."""
        os.kill(process.load(own.spec.record)["supervisor"].pid, signal.SIGKILL)
        own.up(disk_mb=DISK_MB, with_secrets=False)
        assert all(answers(own, host.name) for host in own.hosts)
        assert len([p for p in processes(own) if b"lab.supervisor" in Path(f"/proc/{p}/cmdline").read_bytes()]) == 1

    def test_down_leaves_nothing(self, own: Lab) -> None:
        """Processes, namespace, mounts, loop devices, control groups, files; and a second time is no error."""
        assert leftovers(own)
        own.down()
        assert leftovers(own) == []
        own.down()

    def test_down_after_a_kill_leaves_nothing(self, own: Lab) -> None:
        """The same, without anybody to ask."""
        for pid in processes(own):
            os.kill(pid, signal.SIGKILL)
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
