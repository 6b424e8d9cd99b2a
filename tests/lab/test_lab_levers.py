"""The lab's levers: faults, and their end. Quick: seconds each."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from lab import cgroup, process
from lab.errors import LabError
from tests.lab import lab_hosts
from tests.lab.harness import wait_for
from tests.lab.lab_hosts import DISK_MB, answers, command, connection

if TYPE_CHECKING:
    from lab.api import Lab

pytestmark = pytest.mark.lab

state, shared = lab_hosts.state, lab_hosts.shared


HEAR = """
import socket
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("", 7777))
link.settimeout(3)
try:
    print(link.recv(8).decode())
except TimeoutError:
    print("nothing")
"""
CALL = """
import socket, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for _ in range(20):
    link.sendto(b"hello", ("172.30.30.255", 7777))
    time.sleep(0.1)
"""
"""To everybody: a packet for one host would first need the answer to a question."""


def heard(lab: Lab, caller: str, listener: str) -> bool:
    """Say whether what one host calls is heard on the other."""
    with ThreadPoolExecutor() as pool:
        listening = pool.submit(lab.exec, listener, ["python3", "-c", HEAR])
        lab.exec(caller, ["python3", "-c", CALL])
        return listening.result().stdout.strip() == "hello"


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

    @pytest.mark.parametrize(
        ("packets", "hears", "is_heard"),
        [("all", False, False), ("sent", True, False), ("received", False, True)],
    )
    def test_packets_are_lost_in_silence(self, shared: Lab, packets: str, *, hears: bool, is_heard: bool) -> None:
        """The host's link stays up, and just those are lost that were asked for, also after a start; heal ends it."""
        shared.cut("db-02", packets)
        try:
            assert (shared.status() or {})["t1-kea-db-02"]["cable"] == f"loses {packets}"
            assert command("status", "--name", "t1").returncode == 1
            assert shared.exec("db-02", ["cat", "/sys/class/net/host0/carrier"]).stdout.strip() == "1"
            assert not answers(shared, "db-02")
            assert heard(shared, "db-01", "db-02") is hears
            assert heard(shared, "db-02", "db-01") is is_heard
            assert heard(shared, "witness", "db-01")
            shared.power_off("db-02")
            shared.power_on("db-02")
            assert not answers(shared, "db-02")
        finally:
            shared.heal("db-02")
        shared.power_on("db-02")
        wait_for("the host to answer", lambda: answers(shared, "db-02"))
        assert (shared.status() or {})["t1-kea-db-02"]["cable"] == "plugged"
        with pytest.raises(LabError, match="packets 'some': allowed are all, sent, received"):
            shared.cut("db-02", "some")

    def test_a_disk_is_kept_full_until_it_is_freed(self, shared: Lab) -> None:
        """Also when somebody deletes a file meanwhile."""
        write = ["sh", "-c", "dd if=/dev/zero of=/var/lib/postgresql/more bs=64k count=16 status=none"]
        shared.exec("db-01", ["sh", "-c", "dd if=/dev/zero of=/deleted bs=1M count=8 status=none"])
        shared.fill_disk("db-01")
        try:
            assert "No space left on device" in shared.exec("db-01", write).stderr
            shared.exec("db-01", ["rm", "/deleted"])
            time.sleep(1)
            assert "No space left on device" in shared.exec("db-01", write).stderr
            assert shared.exec("db-02", write).returncode == 0
        finally:
            shared.free_disk("db-01")
        assert shared.exec("db-01", write).returncode == 0
        assert not shared.exec("db-01", ["sh", "-c", "ls / | grep lab"]).stdout
        for host in ("db-01", "db-02"):
            shared.exec(host, ["rm", "-f", "/var/lib/postgresql/more"])

    def test_a_cut_host_comes_back_cut(self, shared: Lab) -> None:
        """Its cable is not its power."""
        shared.cut("db-02")
        shared.power_off("db-02")
        shared.power_on("db-02")
        assert not answers(shared, "db-02")
        shared.heal("db-02")
        shared.power_on("db-02")
        assert answers(shared, "db-02")

    def test_freeze_and_thaw(self, shared: Lab) -> None:
        """Every process stands still with its connections open, the others go on; then it continues."""
        init = (shared.status() or {})["t1-kea-db-01"]["init"]
        # By way of the service manager: what `exec` starts is in the host, but not of it.
        shared.exec("db-01", ["systemd-run", "--quiet", "sh", "-c", "while date +%N >/run/tock; do sleep 0.05; done"])
        wait_for("the first tick", lambda: shared.exec("db-01", ["cat", "/run/tock"]).stdout)
        with connection(shared, "db-01") as link:
            assert shared.freeze("db-01")
            assert not shared.freeze("db-01")
            assert (shared.status() or {})["t1-kea-db-01"]["state"] == "frozen"
            assert command("status", "--name", "t1").returncode == 1
            before = shared.exec("db-01", ["cat", "/run/tock"]).stdout
            time.sleep(0.5)
            assert shared.exec("db-01", ["cat", "/run/tock"]).stdout == before
            assert not answers(shared, "db-01")
            assert answers(shared, "db-02")
            assert link.poll() is None
            assert shared.thaw("db-01")
            assert not shared.thaw("db-01")
            wait_for("it to go on", lambda: shared.exec("db-01", ["cat", "/run/tock"]).stdout != before)
            assert link.poll() is None
            link.kill()
        assert answers(shared, "db-01")
        assert (shared.status() or {})["t1-kea-db-01"]["init"] == init

    def test_a_frozen_host_can_lose_its_power(self, shared: Lab) -> None:
        """At once, and it comes back as one that runs; one that is off cannot be frozen."""
        shared.freeze("db-02")
        assert not shared.power_on("db-02")
        started = time.monotonic()
        shared.power_off("db-02")
        assert time.monotonic() - started < 4
        with pytest.raises(LabError, match="t1-kea-db-02 is powered off"):
            shared.freeze("db-02")
        shared.power_on("db-02")
        assert answers(shared, "db-02")

    def test_a_rebuilt_host_is_new(self, shared: Lab) -> None:
        """Empty disk, new host key; the site file is told, and nothing but that changed in it."""
        disk = shared.spec.disk(shared.spec.host("db-01"))
        shared.exec("db-01", ["sh", "-c", "touch /etc/note /var/lib/postgresql/note; sync"])
        before = yaml.safe_load(shared.spec.site_file.read_text())["config"]["keadb:site"]
        shared.rebuild("db-01")
        assert answers(shared, "db-01")
        assert shared.exec("db-01", ["ls", "/etc/note", "/var/lib/postgresql/note"]).stdout == ""
        assert disk.stat().st_size == DISK_MB * 1024 * 1024
        after = yaml.safe_load(shared.spec.site_file.read_text())["config"]["keadb:site"]
        key = shared.exec("db-01", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.split()
        now = after["hosts"]["t1-kea-db-01"]
        was = before["hosts"]["t1-kea-db-01"]
        assert now["ssh_host_key"].split() == key[:2] != was["ssh_host_key"].split()
        assert now.pop("generation") == 2
        now["ssh_host_key"] = was["ssh_host_key"]
        assert after == before
        backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
        assert [text.strip() for text in backing if str(disk) in text] == [str(disk)]  # the old one is let go

    def test_a_lost_disk_that_nobody_tells_about(self, shared: Lab) -> None:
        """Same key, and the site file knows nothing of it; also of a host that is off."""
        before = shared.spec.site_file.read_bytes()
        shared.exec("witness", ["sh", "-c", "touch /etc/note; sync"])
        key = shared.exec("witness", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout
        shared.power_off("witness")
        shared.rebuild("witness", same_key=True)
        assert answers(shared, "witness")
        assert shared.exec("witness", ["ls", "/etc/note"]).stdout == ""
        assert shared.exec("witness", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout == key
        assert shared.spec.site_file.read_bytes() == before

    def test_an_unknown_host_is_refused(self, shared: Lab) -> None:
        """With the known ones."""
        with pytest.raises(LabError, match="has no host 'db-03'"):
            shared.power_off("db-03")
