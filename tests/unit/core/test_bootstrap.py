"""The very first command on a host, run by a real shell among commands that stand for the host's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from keadb.bootstrap import bootstrap_command
from keadb.bundle import APPLIER
from keadb.platforms import platform

DEBIAN = 'ID=debian\nVERSION_ID="13"\n'


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
    (tmp_path / "os-release").write_text(DEBIAN)
    python = f"printf '#!/bin/sh\\necho installed\\n' >{tmp_path}/python3; chmod +x {tmp_path}/python3"
    (tmp_path / "apt").write_text(f'case "$*" in *"install python3"*) {python} ;; esac\n')
    return tmp_path


def bootstrap(host: Path) -> subprocess.CompletedProcess[str]:
    """Run the first command as SSH would."""
    environment = {"PATH": str(host), "LANG": os.environ.get("LANG", "C")}
    text = bootstrap_command(platform("debian-13"))
    for real, here in (("/etc/os-release", host / "os-release"), (APPLIER, host / "keadb-apply")):
        text = text.replace(real, str(here))
    return subprocess.run(
        ["/bin/sh", "-c", text], env=environment, input="{}", capture_output=True, text=True, check=False
    )


def program(path: Path, script: str) -> None:
    """Put a command there."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


NARROW = """shift
case "$1 $2" in
    "-l "*/keadb-apply) exit 0 ;;
    */"keadb-apply bootstrap") shift; echo "the applier" ;;
    *) exit 1 ;;
esac"""
"""The rule of a host that has its base system: the applier and nothing else."""


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

    def test_an_interpreter_that_stays_broken_is_told(self, host: Path) -> None:
        """Apt believes that it is there: somebody removed a file of it."""
        (host / "apt").write_text("true\n")
        done = bootstrap(host)
        assert done.returncode == 1
        assert done.stderr.startswith("keadb: python3 is installed on db-02 and does not work: mend it as root")
        assert len(done.stderr.splitlines()) == 1


class TestRefused:
    """One line that names the host; nothing was changed there."""

    @staticmethod
    def refused(host: Path) -> str:
        """Run it and return what it says."""
        done = bootstrap(host)
        assert (done.returncode, done.stdout) == (1, "")
        assert not (host / "log").exists()
        (line,) = done.stderr.splitlines()
        return line

    @pytest.mark.parametrize(
        ("release", "found"),
        [
            ("ID=ubuntu\nVERSION_ID='24.04'\n", "ubuntu 24.04"),
            ("ID=debian\nVERSION_ID=12\n", "debian 12"),
            ("ID=debian\n", "debian "),
            (None, "a system without /etc/os-release"),
        ],
    )
    def test_another_system_than_the_platform_of_the_site(self, release: str | None, found: str, host: Path) -> None:
        """Package names, versions and paths would be another system's."""
        (host / "os-release").unlink() if release is None else (host / "os-release").write_text(release)
        program(host / "python3", "true")
        said = self.refused(host).replace(f"{host}/os-release", "/etc/os-release")
        assert said == f"keadb: db-02 runs {found}, but the site file says platform debian-13: nothing was changed"

    def test_no_sudo_on_a_new_host(self, host: Path) -> None:
        """It was not prepared."""
        program(host / "sudo", "exit 1")
        said = self.refused(host)
        assert said == "keadb: user keadb may not use sudo without a password on db-02: see docs/real-site.md"

    def test_a_rule_that_is_gone(self, host: Path) -> None:
        """From a host that keadb had."""
        program(host / "sudo", "exit 1")
        program(host / "keadb-apply", "true")
        said = self.refused(host)
        assert said.startswith("keadb: user keadb may not run the applier with sudo any more on db-02: its rule")

    def test_a_broken_interpreter_where_only_the_applier_may_be_run(self, host: Path) -> None:
        """It cannot be mended from here, and the error says how."""
        program(host / "sudo", NARROW)
        program(host / "keadb-apply", "true")
        program(host / "python3", "exit 1")
        said = self.refused(host)
        assert said.startswith("keadb: python3 is missing or broken on db-02, and user keadb may run nothing but the")
        program(host / "python3", "true")
        assert bootstrap(host).stdout == "the applier\n"
