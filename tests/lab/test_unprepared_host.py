"""A host that is not as it must be: one clear error that names it and the step, and the next run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.harness import BARE, raise_generation

if TYPE_CHECKING:
    from tests.lab.harness import Site

pytestmark = pytest.mark.lab

CONF = "/etc/systemd/journald.conf.d"
FILES = "find /etc /usr/lib/keadb /var/lib/keadb -xdev -type f -exec sha256sum {} + | sort; dpkg-query --show"


@dataclass(frozen=True)
class Fault:
    """What somebody did to the host, how it is mended, and the error that a run ends with."""

    name: str
    breaks: str
    mends: str
    says: str


AT_THE_DOOR = (
    Fault(
        "no sudo",
        "mv /etc/sudoers.d/keadb /root/sudoers",
        "mv /root/sudoers /etc/sudoers.d/keadb",
        "bootstrap: keadb: user keadb may not run the applier with sudo any more on {host}: its rule is gone, see "
        "docs/real-site.md",
    ),
    Fault(
        "another system",
        "cp -P /etc/os-release /root/; rm /etc/os-release; printf 'ID=fedora\\nVERSION_ID=43\\n' >/etc/os-release",
        "cp -P --remove-destination /root/os-release /etc/os-release",
        "bootstrap: keadb: {host} runs fedora 43, but the site file says platform debian-13: nothing was changed",
    ),
    Fault(
        "no interpreter",
        "mv /usr/bin/python3 /root/python3",
        "mv /root/python3 /usr/bin/python3",
        "bootstrap: keadb: python3 is missing or broken on {host}, and user keadb may run nothing but the applier "
        "there: mend it as root (apt-get install --reinstall python3 python3-minimal), then run this again",
    ),
)
READ_ONLY = Fault(
    "a read-only file system",
    f"mount --bind {CONF} {CONF} && mount -o remount,ro,bind {CONF}",
    f"umount {CONF}",
    f"base: keadb-apply apply: bundle base: file {CONF}/60-keadb.conf: {CONF}/60-keadb.conf cannot be written: "
    "Read-only file system; mend that and run it again",
)


def on_host(site: Site, script: str) -> str:
    """Run a script there as root; it must end well."""
    done = site.lab.exec(BARE, ["sh", "-c", script])
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(site: Site, fault: Fault) -> None:
    """Run `up` while the fault lasts: its error is the only one, and is one line."""
    on_host(site, fault.breaks)
    try:
        done = site.keadb("up", "--stack", site.name, "--yes", check=False)
    finally:
        on_host(site, fault.mends)
    assert done.returncode == 1, fault.name
    assert "Traceback" not in done.stdout + done.stderr
    host = site.lab.spec.host(BARE).name
    errors = done.stderr[done.stderr.index("error: ") :].splitlines()
    assert errors == [f"error: {host}: {fault.says.format(host=host)}"], fault.name


def test_each_is_told_and_the_next_run_goes_on(settled: Site) -> None:
    """Refused at the door, nothing on the host is another; half way, the next run does the rest."""
    host = settled.lab.spec.host(BARE).name

    def everything_again(data: dict[str, Any]) -> None:
        raise_generation(data, host)
        data["hosts"][host]["disk_gb"] *= 2

    started = "systemctl show --property=MainPID --value keadb-etcd.service patroni.service"
    before, processes = on_host(settled, FILES), on_host(settled, started)
    with settled.edited(everything_again):
        for fault in AT_THE_DOOR:
            fails(settled, fault)
            assert on_host(settled, FILES) == before, fault.name
        fails(settled, READ_ONLY)
        settled.keadb("up", "--stack", settled.name, "--yes")
        assert "SystemMaxUse=409M" in on_host(settled, f"cat {CONF}/60-keadb.conf")
        settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    settled.keadb("up", "--stack", settled.name, "--yes")
    assert on_host(settled, started) == processes
    settled.require_health()
