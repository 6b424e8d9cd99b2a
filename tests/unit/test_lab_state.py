"""What the lab remembers, and that cleaning up ends only what it started itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lab import bare, cgroup, cli, container, control, image, images, keys, lifecycle, network, process, storage
from lab.errors import LabError
from lab.model import LabSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def spec(tmp_path: Path) -> LabSpec:
    """A lab with a state folder and nothing in it."""
    it = LabSpec("t1", tmp_path / "state")
    it.folder.mkdir(parents=True)
    return it


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that would run for long."""
    with subprocess.Popen(["sleep", "300"]) as child:
        yield child
        child.kill()


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither control groups nor namespaces: these tests need no root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cgroup, "kill", lambda _group: None)
    monkeypatch.setattr(cgroup, "remove", lambda _group: None)
    monkeypatch.setattr(cgroup, "members", lambda _group: [])
    monkeypatch.setattr(network, "exists", lambda _spec: False)


def identity(pid: int) -> process.Identity:
    """Return the identity of a process that is there."""
    found = process.identify(pid)
    assert found is not None
    return found


class TestProcesses:
    """A number alone may be someone else's by now."""

    def test_the_very_process_is_killed(self, sleeper: subprocess.Popen[bytes]) -> None:
        """And afterwards it isn't alive, although it is still a zombie."""
        it = identity(sleeper.pid)
        assert process.kill(it)
        assert process.wait_gone([it], 5) == []
        assert not process.alive(it)

    def test_a_process_with_a_reused_number_is_left_alone(self, sleeper: subprocess.Popen[bytes]) -> None:
        """Another start time, or another boot."""
        it = identity(sleeper.pid)
        assert not process.kill(process.Identity(it.pid, it.start - 1, it.boot))
        assert not process.kill(process.Identity(it.pid, it.start, "another-boot"))
        assert process.alive(it)

    def test_a_process_that_is_gone_is_no_error(self) -> None:
        """`down` twice."""
        with subprocess.Popen(["sleep", "300"]) as child:
            it = identity(child.pid)
            child.kill()
        assert not process.kill(it)

    def test_the_record_is_read_back(self, tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
        """Written whole, nothing beside it."""
        record = {"supervisor": identity(sleeper.pid)}
        process.save(tmp_path / "lab.json", record)
        assert process.load(tmp_path / "lab.json") == record
        assert [path.name for path in tmp_path.iterdir()] == ["lab.json"]

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"processes": {"a": 1}}', '{"processes": {"a": {"pid": 1}}}'])
    def test_a_damaged_record_counts_as_none(self, tmp_path: Path, text: str) -> None:
        """Cleaning up must work on any state."""
        (tmp_path / "lab.json").write_text(text)
        assert process.load(tmp_path / "lab.json") == {}


def _wait_until_named(pid: int) -> None:
    """Wait until the kernel shows the command line of a process that was just started."""
    for _ in range(500):
        if Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} never got its command line")


@pytest.mark.usefixtures("no_kernel")
class TestCleaning:
    """After a lab whose processes were killed, or whose record is old."""

    def test_recorded_processes_end_and_reused_numbers_live(
        self, spec: LabSpec, sleeper: subprocess.Popen[bytes]
    ) -> None:
        """The record of an earlier boot names a process of someone else."""
        with subprocess.Popen(["sleep", "300"]) as ours:
            theirs = identity(sleeper.pid)
            old = process.Identity(theirs.pid, theirs.start - 5, theirs.boot)
            process.save(spec.record, {"supervisor": identity(ours.pid), "t1-kea-db-01": old})
            lifecycle.down(spec, lambda _line: None)
            assert ours.wait(timeout=5) == -9
        assert process.alive(theirs)

    def test_down_removes_the_folder_and_the_empty_root(self, spec: LabSpec) -> None:
        """Nothing is left, and a second time is no error."""
        (spec.folder / "disks").mkdir()
        assert lifecycle.down(spec, lambda _line: None)
        assert not spec.root.exists()
        assert not lifecycle.down(spec, lambda _line: None)

    def test_down_leaves_another_lab_alone(self, spec: LabSpec) -> None:
        """They share only the root folder."""
        other = LabSpec("t2", spec.root)
        other.folder.mkdir()
        lifecycle.down(spec, lambda _line: None)
        assert other.folder.is_dir()

    def test_keep_disks_keeps_the_folder(self, spec: LabSpec) -> None:
        """But not the record of dead processes."""
        process.save(spec.record, {})
        lifecycle.down(spec, lambda _line: None, keep_disks=True)
        assert spec.folder.is_dir()
        assert not spec.record.exists()

    def test_a_lab_of_this_name_elsewhere_is_not_killed(
        self, spec: LabSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Namespace and control group carry the name only; the folder tells whose they are."""
        (tmp_path / "elsewhere" / "t1").mkdir(parents=True)
        argv = ["sh", "-c", "sleep 300; :", "supervisor", "--state", str(tmp_path / "elsewhere")]
        with subprocess.Popen(argv, start_new_session=True) as child:
            _wait_until_named(child.pid)
            monkeypatch.setattr(cgroup, "members", lambda _group: [child.pid])
            monkeypatch.setattr(cgroup, "kill", lambda _group: pytest.fail("killed another lab"))
            try:
                for verb in (lifecycle.up, lifecycle.down):
                    with pytest.raises(LabError, match=f"its state in {tmp_path}/elsewhere; set KEADB_LAB_STATE"):
                        verb(spec, lambda _line: None)
            finally:
                os.killpg(child.pid, 9)

    def test_one_at_a_time(self, spec: LabSpec) -> None:
        """A `down` waits for the `up` that has the lab, says so, and then does its work."""
        holder = os.open(spec.folder, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        said: list[str] = []
        thread = threading.Thread(target=lifecycle.down, args=(spec, said.append))
        thread.start()
        deadline = time.monotonic() + 5
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        assert said == ["lab t1: waiting for another command that has it"]
        assert spec.folder.exists()
        os.close(holder)
        thread.join(timeout=5)
        assert not spec.folder.exists()

    def test_a_real_stacks_name_is_refused(
        self, spec: LabSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Commands find stacks by name: `keadb up --stack t1` must mean one thing."""
        (tmp_path / "Pulumi.t1.yaml").touch()
        monkeypatch.setattr(lifecycle, "_REPOSITORY", tmp_path)
        with pytest.raises(LabError, match="a real stack has this name"):
            lifecycle.up(spec, lambda _line: None)

    def test_the_spare_machine_is_there_from_the_start_or_never(self, spec: LabSpec) -> None:
        """A lab that has a folder has its machines."""
        with pytest.raises(LabError, match="was made without the spare machine"):
            lifecycle.up(spec, lambda _line: None, spare=True)

    def test_too_small_a_disk_is_refused(self, spec: LabSpec) -> None:
        """PostgreSQL could not even be born on it."""
        with pytest.raises(LabError, match="disk size 100 MiB: at least 256"):
            lifecycle.up(spec, lambda _line: None, disk_mb=100)


class TestImageOfDisks:
    """Disks are layers over one image and no other."""

    @pytest.fixture
    def today(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
        """Today's images, as if built: the test may let another day come."""
        folders = {"full": tmp_path / "image-1", "bare": tmp_path / "bare-1"}
        for folder in folders.values():
            folder.mkdir()
        monkeypatch.setattr(image, "ensure", lambda _say: folders["full"])
        monkeypatch.setattr(bare, "ensure", lambda _say: folders["bare"])
        return folders

    @staticmethod
    def bring_up(spec: LabSpec, *bare_hosts: str) -> list[Path]:
        """Choose and write down, as `up` does, and make the disks."""
        images.record(spec, images.ensure(spec, bare_hosts, lambda _line: None))
        for host in spec.hosts:
            spec.disk(host).parent.mkdir(exist_ok=True)
            spec.disk(host).touch()
        return [images.read(spec)[host.name].folder for host in spec.hosts]

    def test_kept_disks_keep_their_image(self, spec: LabSpec, today: dict[str, Path]) -> None:
        """A changed recipe must not slide another root file system below them; a bare one stays bare unasked."""
        first = self.bring_up(spec, "db-02")
        assert first == [today["full"], today["bare"], today["full"]]
        today.update(full=spec.root, bare=spec.root)
        assert self.bring_up(spec) == first
        first[1].rmdir()
        with pytest.raises(LabError, match=r"the image of t1-kea-db-02's disk is gone .*; take the lab down first"):
            self.bring_up(spec)

    def test_without_disks_todays_image_is_used(self, spec: LabSpec, today: dict[str, Path]) -> None:
        """An `up` that failed early binds nobody; neither does a wish that came to nothing."""
        images.record(spec, images.ensure(spec, ["db-02"], lambda _line: None))
        today["full"] = spec.root
        assert self.bring_up(spec) == [spec.root] * 3

    def test_a_host_with_a_disk_cannot_become_bare(self, spec: LabSpec, today: dict[str, Path]) -> None:
        """Said at once instead of starting it as it was."""
        assert today
        self.bring_up(spec)
        with pytest.raises(LabError, match="t1-kea-db-02 has a disk that was not made bare; take the lab down first"):
            self.bring_up(spec, "db-02")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a host's root file system belongs to root")
class TestSeeds:
    """What makes a root file system one certain host."""

    @pytest.fixture
    def root(self, spec: LabSpec) -> Path:
        """A host's disk and root, as if mounted."""
        keys.ensure(spec)
        mounts = spec.mounts(spec.hosts[0])
        (mounts / "disk").mkdir(parents=True)
        (mounts / "root").mkdir()
        return mounts / "root"

    def test_identity_and_network(self, spec: LabSpec, root: Path) -> None:
        """Static address, pinned key, no way out of the lab."""
        host = spec.hosts[0]
        assert container.seed(spec, host, root)
        network_file = (root / "etc/systemd/network/10-host0.network").read_text()
        assert "Address=172.30.30.10/24" in network_file
        assert "Gateway" not in network_file
        key = root / "etc/ssh/ssh_host_ed25519_key"
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.read_bytes() == spec.host_key(host).read_bytes()
        allowed = (root / "home/keadb/.ssh/authorized_keys").read_text()
        assert allowed == container.public(spec.deploy_key).read_text()

    def test_later_starts_leave_the_hosts_files_alone(self, spec: LabSpec, root: Path) -> None:
        """The base system writes /etc/hosts; a power-on must not undo that."""
        container.seed(spec, spec.hosts[0], root)
        (root / "etc/hosts").write_text("changed\n")
        assert not container.seed(spec, spec.hosts[0], root)
        assert (root / "etc/hosts").read_text() == "changed\n"

    def test_a_new_host_key_is_written(self, spec: LabSpec, root: Path) -> None:
        """Else the pinned key in the site file would never match again."""
        host = spec.hosts[0]
        container.seed(spec, host, root)
        spec.host_key(host).unlink()
        keys.ensure(spec)
        assert container.seed(spec, host, root)
        assert (root / "etc/ssh/ssh_host_ed25519_key").read_bytes() == spec.host_key(host).read_bytes()

    def test_another_address_leaves_the_other_files_alone(self, spec: LabSpec, root: Path) -> None:
        """Only the network's file changes, and the next start does not write the rest anew."""
        host = spec.hosts[0]
        container.seed(spec, host, root)
        (root / "etc/hosts").write_text("the site's own")
        moved = spec.moved(host, "172.30.30.20")
        container.readdress(spec, moved, root)
        assert "Address=172.30.30.20/24\n" in (root / "etc/systemd/network/10-host0.network").read_text()
        assert not container.seed(spec, moved, root)
        assert (root / "etc/hosts").read_text() == "the site's own"

    def test_machine_ids_differ(self, spec: LabSpec, tmp_path: Path) -> None:
        """Between hosts and between labs: networkd derives addresses from them."""
        others = LabSpec("t1", tmp_path / "else").hosts
        ids = {container.machine_id(spec, host) for host in spec.hosts}
        ids |= {container.machine_id(LabSpec("t1", tmp_path / "else"), host) for host in others}
        assert len(ids) == 6

    def test_a_disk_is_made_once(self, spec: LabSpec, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sparse, whole or not there, and never formatted again."""
        made: list[str] = []
        monkeypatch.setattr(storage, "run", lambda *argv: made.append(argv[-1]))
        disk = spec.disk(spec.hosts[0])
        storage.create(disk, 300)
        assert disk.stat().st_size == 300 * 1024 * 1024
        assert disk.stat().st_blocks * 512 < 1024 * 1024
        storage.create(disk, 300)
        assert len(made) == 1


class TestCommands:
    """The command line, where no lab is up."""

    def test_without_root_one_clear_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No traceback, nothing tried."""
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        done = CliRunner().invoke(cli.lab, ["up", "--name", "t1"])
        assert done.exit_code == 1
        assert "the lab needs root" in done.output

    @pytest.mark.usefixtures("no_kernel")
    @pytest.mark.parametrize(
        "arguments",
        [
            ["power-off", "db-01"],
            ["power-on", "db-01"],
            ["cut", "db-01"],
            ["heal", "db-01"],
            ["freeze", "db-01"],
            ["thaw", "db-01"],
            ["rebuild", "db-01"],
            ["exec", "db-01", "true"],
        ],
    )
    def test_levers_refuse_what_is_not_a_running_lab(
        self, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A stack of the same name is nothing to them: they know labs only."""
        monkeypatch.setenv("KEADB_LAB_STATE", str(tmp_path))
        done = CliRunner().invoke(cli.lab, [arguments[0], "--name", "us1", *arguments[1:]])
        assert done.exit_code == 1
        assert "lab us1 is not up; start it with: keadb lab up --name us1" in done.output

    @pytest.mark.usefixtures("no_kernel")
    def test_status_of_no_lab(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """For programs as well, and the exit code says it."""
        monkeypatch.setenv("KEADB_LAB_STATE", str(tmp_path))
        done = CliRunner().invoke(cli.lab, ["status", "--json"])
        assert done.exit_code == 1
        assert json.loads(done.output) == {"lab": "lab", "up": False, "hosts": {}}

    def test_a_deep_state_folder_is_no_problem_for_the_socket(self, tmp_path: Path) -> None:
        """Socket names are limited to 107 bytes."""
        it = LabSpec("t1", tmp_path / ("x" * 120))
        it.folder.mkdir(parents=True)
        with control.short_path(it) as path:
            assert len(path) < 60

    def test_a_supervisor_that_dies_while_it_is_asked_is_none(
        self, spec: LabSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It took the call and was gone before the question."""
        short_path = control.short_path
        listening = socket.socket(socket.AF_UNIX)
        with short_path(spec) as path:
            listening.bind(path)
        listening.listen()

        @contextlib.contextmanager
        def gone_after_the_call(it: LabSpec) -> Iterator[str]:
            with short_path(it) as path:
                yield path
            listening.close()

        monkeypatch.setattr(control, "short_path", gone_after_the_call)
        with pytest.raises(LabError, match="lab t1 is not up"):
            control.ask(spec, "status")
