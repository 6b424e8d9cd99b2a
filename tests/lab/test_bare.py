"""A host that began bare: what packages bring along was really met, and nothing of it ever ran.

The site's second database host starts without Python, openssl, PostgreSQL and the rest (see ``lab.bare``); the
first `up` installed them. A host of the full image can show none of this: there packages were installed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import images
from tests.lab.harness import BARE

if TYPE_CHECKING:
    from tests.lab.harness import Site

pytestmark = pytest.mark.lab


def output(site: Site, *argv: str) -> str:
    """Return what a command says on the bare host."""
    done = site.lab.exec(BARE, argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_up_installed_all_of_it(settled: Site) -> None:
    """From an image without an interpreter to a member; apt was run by keadb alone, and left nothing half done."""
    image = images.read(settled.lab.spec)[settled.lab.spec.host(BARE).name]
    assert image.bare
    for program in ("python3", "openssl", "etcd", "patroni"):
        assert not (image.folder / "usr/bin" / program).exists()
        assert output(settled, "sh", "-c", f"command -v {program}")
    assert output(settled, "dpkg", "--audit") == ""


def test_what_packages_start_by_themselves_never_ran(settled: Site) -> None:
    """Not for a moment: an etcd or PostgreSQL of the distribution would hold ports and data folders."""
    own = output(settled, "journalctl", "--quiet", "--unit=keadb-etcd.service", "--lines=1")
    assert own  # so that silence means something
    theirs = ("etcd.service", "postgresql.service", "postgresql@15-main.service")
    assert output(settled, "journalctl", "--quiet", *(f"--unit={unit}" for unit in theirs)) == ""
    assert output(settled, "pg_lsclusters", "--no-header") == ""
    masked = settled.lab.exec(BARE, ["systemctl", "is-enabled", "etcd.service", "postgresql.service"])
    assert masked.stdout.split() == ["masked", "masked"]


def test_versions_are_held(settled: Site) -> None:
    """An upgrade of the whole machine leaves the cluster's packages where they are."""
    held = output(settled, "apt-mark", "showhold").split()
    assert {"patroni", "postgresql-15"} <= set(held)
    settled.require_health()


def test_unattended_upgrades_would_read_the_list(settled: Site) -> None:
    """apt, whose settings they are, understands it beside the distribution's; what is listed is left alone."""
    read = output(settled, "apt-config", "dump", "Unattended-Upgrade").splitlines()
    listed = {line.split('"')[1] for line in read if line.startswith("Unattended-Upgrade::Package-Blacklist:: ")}
    assert {"^etcd-server$", "^etcd-client$", "^patroni$", "^postgresql-15$"} <= listed
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in read


OTHER = "lab-control.service"
RUNS = f"/run/systemd/system/{OTHER}"
STARTED = f"""
echo '[Service]' >{RUNS}
echo 'ExecStart=/usr/bin/python3 -c "import psycopg2, time; time.sleep(600)"' >>{RUNS}
systemctl daemon-reload && systemctl start {OTHER} && sleep 1
for library in /usr/lib/*/libpq.so.5.*; do cp -p "$library" "$library.new" && mv "$library.new" "$library"; done
"""


def test_needrestart_leaves_members_alone(settled: Site) -> None:
    """A library was upgraded: what isn't the cluster's is restarted, and Patroni, which uses it too, is not."""

    def first_process(*units: str) -> list[str]:
        return output(settled, "systemctl", "show", "--property=MainPID", "--value", *units).split()

    before = first_process("patroni.service", "keadb-etcd.service")
    try:
        output(settled, "sh", "-c", STARTED)
        other = first_process(OTHER)
        said = output(settled, "needrestart", "-q", "-r", "a")
        assert "patroni.service" in said  # it was noticed, and left to whoever looks after the cluster
        assert "0" not in first_process(OTHER) != other
        assert first_process("patroni.service", "keadb-etcd.service") == before
    finally:
        gone = f"systemctl stop {OTHER}; rm -f {RUNS}; systemctl daemon-reload"
        settled.lab.exec(BARE, ["sh", "-c", gone])


def test_the_journal_is_limited_and_still_heard(settled: Site) -> None:
    """By the base system's setting, and services that ran before it was set still reach it."""
    shown = output(settled, "systemd-analyze", "cat-config", "systemd/journald.conf")
    limits = [line for line in shown.splitlines() if line.startswith("SystemMaxUse=")]
    assert limits[-1] == "SystemMaxUse=204M"
    said = output(settled, "journalctl", "--quiet", "--unit=systemd-journald.service", "--output=cat")
    assert "max 204" in said
