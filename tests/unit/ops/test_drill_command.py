"""The command ``drill``: what it refuses, before anything is touched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ops.drill_command import FORCE_WORDS
from ops.drill_faults import FAULTS
from ops.exits import Exit
from tests.unit.ops.test_cli import keadb, lab

if TYPE_CHECKING:
    from pathlib import Path

made_lab = lab


def test_the_list_has_every_fault_and_needs_no_stack() -> None:
    """For programs and for people."""
    done = keadb("drill", "--list", "--json")
    assert [fault["name"] for fault in json.loads(done.stdout)] == list(FAULTS)
    targets = {fault["name"]: fault["target_s"] for fault in json.loads(done.stdout)}
    assert (targets["switchover"], targets["postgres-killed"], targets["leader-silent-cut"]) == (3, 6, 27)
    text = keadb("drill", "--list").stdout
    assert all(name in text for name in FAULTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param((), "us3 is a real site: nothing was done", id="a real site"),
        pytest.param(("--force-on-a-real-site", "yes"), "(given 'yes')", id="forced in other words"),
        pytest.param(("--force-on-a-real-site", FORCE_WORDS), "us3 has none: nothing was done", id="no levers there"),
    ],
)
def test_a_real_site_is_refused(arguments: tuple[str, ...], said: str) -> None:
    """With one clear sentence, and as a wrong command line."""
    done = keadb("drill", "--stack", "us3", *arguments)
    assert done.returncode == Exit.USAGE
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_unknown_names_are_refused(made_lab: tuple[Path, str]) -> None:
    """The message has what was given and what is allowed."""
    _file, labs = made_lab
    done = keadb("drill", "--stack", "made", "--fault", "meteor", KEADB_LAB_STATE=labs)
    assert done.returncode == Exit.USAGE
    assert "--fault: given 'meteor', allowed: switchover, postgres-killed" in done.stderr
    done = keadb("drill", "--stack", "made", "--runs", "0", KEADB_LAB_STATE=labs)
    assert done.returncode == Exit.USAGE
    done = keadb("drill")
    assert (done.returncode, done.stderr) == (Exit.USAGE, "keadb: drill: give the stack of a lab with --stack\n")


def test_a_lab_that_is_not_up_is_said(made_lab: tuple[Path, str]) -> None:
    """Before a folder is made."""
    _file, labs = made_lab
    done = keadb("drill", "--stack", "made", KEADB_LAB_STATE=labs)
    assert done.returncode == Exit.FAILED
    assert "lab made is not running" in done.stderr
