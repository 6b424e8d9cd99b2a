"""The base system's bundle: what keeps a machine's own habits away from the cluster. And the very first command."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from components.base_system import JOURNALD, NEEDRESTART, UNATTENDED, base_bundle
from components.host import _BOOTSTRAP
from keadb.site import Site, load_site
from tests.unit.core.samples import ha, put
from tests.unit.core.samples import site as sample


def content(of: Site, path: str) -> str:
    """Return a file of the first host's base bundle."""
    return base_bundle(of, next(iter(of.hosts.values()))).files[path].content


class TestLogs:
    """The journal never takes the disk that the database needs."""

    @pytest.mark.parametrize(("disk_gb", "megabytes"), [(4, 204), (20, 1024), (500, 1024), (1, 64)])
    def test_its_size_follows_the_disk(self, disk_gb: int, megabytes: int) -> None:
        """A twentieth, within limits."""
        data = put(ha(), "hosts/lab-kea-db-01/disk_gb", disk_gb)
        text = content(load_site(data, source="test"), JOURNALD)
        assert f"SystemMaxUse={megabytes}M\n" in text

    def test_a_changed_limit_restarts_the_journal(self) -> None:
        """It reads its settings at the start only."""
        bundle = base_bundle(sample(), sample().control_host)
        assert bundle.units["systemd-journald.service"].restart_on == (JOURNALD,)


class TestUnattendedUpgrades:
    """Read by unattended-upgrades: regular expressions, matched from a name's start."""

    @staticmethod
    def blocked(of: Site) -> list[re.Pattern[str]]:
        """Return the patterns of the file."""
        block = content(of, UNATTENDED).partition("Package-Blacklist {")[2].partition("};")[0]
        return [re.compile(text) for text in re.findall(r'"(.+)";', block)]

    def test_the_clusters_packages_are_left_alone(self) -> None:
        """Those, and not the rest of the machine: security updates of openssl are wanted."""
        patterns = self.blocked(sample())
        for name in ("etcd-server", "patroni", "postgresql-15", "kea-admin"):
            assert any(pattern.match(name) for pattern in patterns), name
        for name in ("openssl", "postgresql-common", "patroni-doc", "libpq5"):
            assert not any(pattern.match(name) for pattern in patterns), name

    def test_it_never_reboots(self) -> None:
        """Two machines at the same minute would be an outage."""
        assert 'Unattended-Upgrade::Automatic-Reboot "false";' in content(sample(), UNATTENDED)


class TestNeedrestart:
    """Read by needrestart as Perl: a unit that matches is not restarted unasked."""

    def test_members_are_not_restarted(self) -> None:
        """Patroni takes PostgreSQL along; everything else may be."""
        text = re.search(r"qr\((.+)\)}", content(sample(), NEEDRESTART))
        assert text
        ours = re.compile(text[1])
        for unit in ("keadb-etcd.service", "patroni.service", "etcd.service", "postgresql@15-main.service"):
            assert ours.search(unit), unit
        for unit in ("ssh.service", "cron.service", "my-patroni.service", "systemd-journald.service"):
            assert not ours.search(unit), unit


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of commands that stand for a new host's: everything but an interpreter."""
    commands = {
        "sudo": 'shift; [ "$1" != -l ] || exit 1; exec "$@"',
        "id": "echo keadb",
        "uname": "echo db-02",
        "dpkg": f'[ "$1" != --audit ] || exec cat {tmp_path}/audit; echo "dpkg $*" >>{tmp_path}/log',
        "apt-get": f'echo "apt-get $* $DEBIAN_FRONTEND $NEEDRESTART_SUSPEND" >>{tmp_path}/log; . {tmp_path}/apt',
    }
    for name, script in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("sh", "cat", "chmod", "true"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    (tmp_path / "audit").touch()
    python = f"printf '#!/bin/sh\\necho installed\\n' >{tmp_path}/python3; chmod +x {tmp_path}/python3"
    (tmp_path / "apt").write_text(f'case "$*" in *"install python3"*) {python} ;; esac\n')
    return tmp_path


def bootstrap(host: Path) -> subprocess.CompletedProcess[str]:
    """Run the first command as SSH would."""
    environment = {"PATH": str(host), "LANG": os.environ.get("LANG", "C")}
    return subprocess.run(
        ["/bin/sh", "-c", _BOOTSTRAP], env=environment, input="{}", capture_output=True, text=True, check=False
    )


class TestFirstCommand:
    """What a host without an interpreter is given."""

    def test_python_is_installed_without_a_question_and_without_restarts(self, host: Path) -> None:
        """Nobody sits at the other end; and its apt timers may be at work."""
        done = bootstrap(host)
        assert (done.returncode, done.stdout) == (0, "installed\n")
        update, install = (host / "log").read_text().splitlines()
        options = "-q --yes --no-install-recommends -o DPkg::Lock::Timeout=240"
        assert update == f"apt-get {options} update noninteractive 1"
        assert install == f"apt-get {options} install python3 noninteractive 1"

    def test_an_installation_that_was_cut_is_finished_first(self, host: Path) -> None:
        """Else apt refuses to do anything; and an interpreter that lacks its library is none."""
        (host / "audit").write_text("python3 is only half configured\n")
        (host / "python3").write_text("#!/bin/sh\nexit 1\n")
        (host / "python3").chmod(0o755)
        done = bootstrap(host)
        assert (done.returncode, done.stdout) == (0, "installed\n")
        calls = (host / "log").read_text().splitlines()
        assert calls[0] == "dpkg --force-confdef --force-confold --configure --pending"
        assert calls[2].endswith("240 --fix-broken install noninteractive 1")
        assert calls[3].endswith("install python3 noninteractive 1")

    def test_an_interpreter_that_works_is_used(self, host: Path) -> None:
        """No apt, which could do more than asked."""
        (host / "python3").write_text("#!/bin/sh\necho there\n")
        (host / "python3").chmod(0o755)
        assert bootstrap(host).stdout == "there\n"
        assert not (host / "log").exists()

    def test_when_it_cannot_be_installed_the_host_is_named(self, host: Path) -> None:
        """After apt's own words; nothing else is tried."""
        (host / "apt").write_text("echo 'E: no such source' >&2; exit 100\n")
        done = bootstrap(host)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-2:] == [
            "E: no such source",
            "keadb: python3 could not be installed on db-02: apt-get's message is above",
        ]
