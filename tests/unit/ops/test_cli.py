"""Exit codes and messages of the command line, without engine and hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ops.exits import Exit

ROOT = Path(__file__).parents[3]


def keadb(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with a clean slate of stacks beside the repository's own."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "KEADB_LAB_STATE": "/nowhere", "HOME": "/nowhere"}
    return subprocess.run(
        [sys.executable, "-B", "-m", "ops", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
        env={**env, **environment},
    )


@pytest.fixture
def lab(tmp_path: Path) -> tuple[Path, str]:
    """A lab's folder with the site file of us3; nothing of it runs. Returns the site file and the state folder."""
    folder = tmp_path / "labs" / "made"
    folder.mkdir(parents=True)
    text = (ROOT / "Pulumi.us3.yaml").read_text().replace("us3", "made")
    (folder / "Pulumi.made.yaml").write_text(text)
    return folder / "Pulumi.made.yaml", str(tmp_path / "labs")


def test_every_stack_file_of_the_repository_is_valid() -> None:
    """But for certificates that come of age: the examples' dates stand still, the calendar does not."""
    done = keadb("validate", "--json")
    found = json.loads(done.stdout)
    assert sorted(found) == ["dv", "us1", "us2", "us3", "us4"]
    assert [p for problems in found.values() for p in problems if "days are left" not in p["problem"]] == []
    assert done.stderr == ""


def test_validate_says_which_files_it_looked_at(lab: tuple[Path, str]) -> None:
    file, labs = lab
    file.write_text(re.sub(r'epoch: "[0-9-]+"', f'epoch: "{datetime.now(UTC).date()}"', file.read_text()))
    done = keadb("validate", "--stack", "made", KEADB_LAB_STATE=labs)
    assert (done.returncode, done.stdout) == (0, "1 stack file without a problem: made\n")


@pytest.mark.parametrize("command", [["up", "--yes"], ["preview"]])
def test_certificates_of_the_future_stop_the_engine_before_it_starts(
    lab: tuple[Path, str], command: list[str]
) -> None:
    """Every host would get certificates that every other one refuses."""
    file, labs = lab
    later = datetime.now(UTC).date() + timedelta(days=2)
    file.write_text(re.sub(r' epoch: "[0-9-]+"', f' epoch: "{later}"', file.read_text()))
    done = keadb(*command, "--stack", "made", KEADB_LAB_STATE=labs)
    assert done.returncode == Exit.FAILED
    assert "tls.epoch: makes certificates that are not valid yet" in done.stderr


def test_all_problems_of_a_file_are_shown_together(lab: tuple[Path, str]) -> None:
    file, labs = lab
    text = file.read_text().replace("topology: ha", "topology: twin").replace("platform:", "platfrom:")
    file.write_text(text)
    done = keadb("validate", "--stack", "made", KEADB_LAB_STATE=labs, COLUMNS="300")
    assert done.returncode == Exit.FAILED
    assert "twin" in done.stdout
    assert "platfrom" in done.stdout


def test_bad_site_file_stops_up_before_the_engine(lab: tuple[Path, str]) -> None:
    file, labs = lab
    file.write_text(file.read_text().replace("topology: ha", "topology: twin"))
    done = keadb("up", "--stack", "made", "--yes", KEADB_LAB_STATE=labs)
    assert done.returncode == Exit.FAILED
    assert "topology" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_secrets_are_one_error_that_says_what_to_do() -> None:
    done = keadb("preview", "--stack", "us1")
    assert done.returncode == Exit.FAILED
    assert done.stderr.count("\n") == 1
    assert "run 'keadb secrets init --stack us1'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up"], "--stack"),
        (["up", "--stack", "us1", "--force"], "--force"),
        (["up", "--stack", "us1", "--yes", "--no-look", "--repair", "us1-kea-db-01"], "leave --no-look out"),
        (["status", "--stack", "us9"], "unknown stack 'us9'; known: dv, us1, us2, us3, us4"),
        (["up", "--stack", "us1"], "give --yes"),
        (["destroy", "--stack", "us1", "--json"], "give --yes"),
        (["render", "--stack", "us1"], "--out"),
    ],
)
def test_bad_usage_has_an_exit_code_of_its_own(arguments: list[str], said: str) -> None:
    done = keadb(*arguments)
    assert done.returncode == Exit.USAGE
    assert said in done.stderr


def test_lab_that_is_not_up_is_said_so(lab: tuple[Path, str]) -> None:
    done = keadb("status", "--stack", "made", KEADB_LAB_STATE=lab[1])
    assert done.returncode == Exit.FAILED
    assert done.stderr == ("keadb: lab made is not running: its network keadb-made does not exist; run 'make up'\n")


def test_render_twice_gives_the_same_tree_whatever_umask_home_and_folder(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert keadb("render", "--stack", "us3", "--out", str(one)).returncode == 0
    before = os.umask(0o077)
    try:
        assert keadb("render", "--stack", "us3", "--out", str(two), HOME=str(tmp_path), USER="x").returncode == 0
    finally:
        os.umask(before)
    assert shutil.which("diff")
    assert subprocess.run(["diff", "-r", one, two], check=False).returncode == 0
    assert list(one.rglob("kea-database.json"))


def test_validate_does_not_load_the_engines_sdk() -> None:
    """It is what runs in every pull request and every editor: it has to start at once."""
    code = (
        "import sys; from ops import cli; from ops.stacks import known_stacks; "
        "import ops.sites; bad = {'pulumi', 'asyncssh', 'grpc', 'jinja2'} & set(sys.modules); "
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
