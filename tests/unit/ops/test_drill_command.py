"""The command ``drill``: what it refuses, before anything is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ops.drill_command import FORCE_WORDS, drill
from ops.drill_faults import FAULTS
from ops.exits import CommandError, Exit

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def made_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab ``made`` of which nothing runs, and no other."""
    folder = tmp_path / "labs" / "made"
    folder.mkdir(parents=True)
    text = (ROOT / "Pulumi.us3.yaml").read_text().replace("us3", "made")
    (folder / "Pulumi.made.yaml").write_text(text)
    monkeypatch.setenv("KEADB_LAB_STATE", str(tmp_path / "labs"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(drill, arguments, standalone_mode=False)


def refused(*arguments: str) -> CommandError:
    """Run the command; it must end with one error of ours, and nothing on standard output."""
    done = run(*arguments)
    assert isinstance(done.exception, CommandError)
    assert done.stdout == ""
    return done.exception


def test_the_list_has_every_fault_and_needs_no_stack() -> None:
    """For programs and for people."""
    told = json.loads(run("--list", "--json").stdout)
    assert [fault["name"] for fault in told] == list(FAULTS)
    targets = {fault["name"]: fault["target_s"] for fault in told}
    assert (targets["switchover"], targets["postgres-killed"], targets["leader-silent-cut"]) == (3, 6, 27)
    assert targets["etcd-quorum-lost"] is None
    text = run("--list").stdout
    assert all(name in text for name in FAULTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param((), "us3 is a real site: nothing was done", id="a real site"),
        pytest.param(("--force-on-a-real-site", "yes"), "(given 'yes')", id="forced in other words"),
        pytest.param(("--force-on-a-real-site", FORCE_WORDS), "us3 has none: nothing was done", id="no levers there"),
    ],
)
def test_a_real_site_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """With one clear sentence, and as a wrong command line."""
    error = refused("--stack", "us3", "--out", str(tmp_path / "out"), *arguments)
    assert error.code is Exit.USAGE
    assert said in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "drill: give the stack of a lab with --stack"),
        (("--stack", "made", "--fault", "meteor"), "--fault: given 'meteor', allowed: switchover, postgres-killed"),
        (("--stack", "made", "--parameters", "best"), "--parameters: given 'best', allowed: site, keadb"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[str, ...], said: str) -> None:
    """The message has what was given and what is allowed."""
    error = refused(*arguments)
    assert error.code is Exit.USAGE
    assert str(error).startswith(said)


def test_a_lab_that_is_not_up_is_said(tmp_path: Path) -> None:
    """Before a folder is made."""
    error = refused("--stack", "made", "--out", str(tmp_path / "out"))
    assert error.code is Exit.FAILED
    assert str(error).startswith("lab made is not running")
    assert not (tmp_path / "out").exists()
