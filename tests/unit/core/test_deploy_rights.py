"""What the deploy user may do on a host: exactly what ``keadb`` calls, over a connection that leads nowhere else."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from components.base_system import SSHD, SSHD_SCRIPT, SUDOERS, base_bundle
from keadb.bundle import APPLIER
from keadb.deploy_rights import DAY_2_OPTIONS, EVERYWHERE, applier_words
from tests.unit.core.samples import ROOT, site
from tests.unit.core.samples import single as single_data


def test_everything_that_keadb_calls_over_ssh_is_allowed() -> None:
    """A verb that is missing would be found out on a host, as a question for a password."""
    called = set()
    for path in [*(ROOT / "ops").glob("*.py"), *(ROOT / "components").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "applier_command":
                called |= {word.value for word in node.args if isinstance(word, ast.Constant)}
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"ask", "_ask"}:
                called |= {a.value for a in node.args if isinstance(a, ast.Constant) and str(a.value).isalpha()}
    assert {"apply", "status", "check", "audit", "foresee"} <= called
    assert called <= set(EVERYWHERE)


@pytest.mark.parametrize(
    "command",
    [
        "patroni-switchover --check",
        "patroni-switchover --leader lab-kea-db-02",
        "patroni-restart --check",
        "patroni-restart lab-kea-db-01 --check",
        "patroni-restart lab-kea-db-01 --leader lab-kea-db-02",
        "patroni-reinit lab-kea-db-02 --leader lab-kea-db-01",
        "patroni-pause on",
        "patroni-pause off --check",
    ],
)
def test_day_2_work_is_allowed_on_the_control_host_only(command: str) -> None:
    of = site()
    assert f"{DAY_2_OPTIONS} {command}" in applier_words(of, of.control_host)
    assert all("patroni" not in words for words in applier_words(of, of.database_hosts[0]))
    assert command not in applier_words(of, of.control_host)


def test_single_has_its_day_2_work_on_its_one_host() -> None:
    of = site(single_data)
    assert f"{DAY_2_OPTIONS} patroni-restart --leader lab-kea-db-01" in applier_words(of, of.database_hosts[0])


def test_the_rules_are_words_without_wildcards() -> None:
    """One rule a line, each for root, none that stands for more than itself."""
    of = site()
    rules = base_bundle(of, of.control_host).files[SUDOERS]
    lines = [line for line in rules.content.splitlines() if not line.startswith("#")]
    start = f"keadb ALL=(root) NOPASSWD: {APPLIER} "
    assert [line.removeprefix(start) or '""' for line in lines] == [
        w or '""' for w in applier_words(of, of.control_host)
    ]
    assert all(line.startswith(start) for line in lines)
    assert not re.search(r"[*?\[\]!\\^$]|--root|run-request|\bALL$", "\n".join(lines))
    assert rules.mode == "0440"


@pytest.mark.skipif(shutil.which("visudo") is None, reason="no sudo on this machine")
def test_sudo_reads_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "keadb"
    file.write_text(base_bundle(site(), site().control_host).files[SUDOERS].content)
    done = subprocess.run(["visudo", "-cf", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestSsh:
    """The SSH server reads the rules of the deploy user once, and never ones that it would not start with."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> Path:
        """A host whose sshd and systemctl note how they were called."""
        files = base_bundle(site(), site().control_host).files
        (tmp_path / "rules").write_text(files[SSHD].content)
        script = files[SSHD_SCRIPT].content.replace(SSHD, str(tmp_path / "rules"))
        (tmp_path / "script").write_text(script.replace("/var/lib/keadb", str(tmp_path)))
        for name in ("sshd", "systemctl"):
            (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/log; . {tmp_path}/{name}.does\n')
            (tmp_path / name).chmod(0o755)
            (tmp_path / f"{name}.does").write_text("exit 0\n")
        return tmp_path

    def run(self, host: Path, *argv: str) -> int:
        """Run the script."""
        environment = {"PATH": f"{host}:/usr/bin:/bin"}
        return subprocess.run(
            ["/bin/sh", host / "script", *argv], env=environment, capture_output=True, check=False
        ).returncode

    def test_it_is_reloaded_once_for_these_rules(self, host: Path) -> None:
        assert self.run(host, "--check") != 0
        assert self.run(host) == 0
        assert (host / "log").read_text() == "sshd -t\nsystemctl try-reload-or-restart ssh.service\n"
        assert self.run(host, "--check") == 0
        (host / "rules").write_text("Match User somebody\n")
        assert self.run(host, "--check") != 0

    def test_rules_that_sshd_refuses_are_not_brought_into_force(self, host: Path) -> None:
        (host / "sshd.does").write_text("exit 255\n")
        assert self.run(host) != 0
        assert (host / "log").read_text() == "sshd -t\n"
        assert self.run(host, "--check") != 0

    def test_the_rules_hold_for_the_deploy_user_alone(self) -> None:
        """Who else comes to the machine is its owner's business."""
        lines = [line.strip() for line in base_bundle(site(), site().control_host).files[SSHD].content.splitlines()]
        assert lines[1] == "Match User keadb"
        assert {"AuthenticationMethods publickey", "PasswordAuthentication no", "DisableForwarding yes"} <= set(lines)
