"""A campaign of drills: its order, its folder, and that it goes on where it was cut."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ops import drill_campaign as campaigns
from ops.drill_campaign import Task
from ops.drill_record import Campaign, Record
from ops.exits import CommandError, Exit
from tests.unit.ops.test_drill_record import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASKED = Campaign(stack="lab", seed=3, faults=("a", "b", "c", "d", "e"), runs=2, parameters=("site", "other"))


def _record(task: Task) -> Record:
    return replace(RECORD, fault=task.fault, run=task.run, parameters=task.parameters)


def test_the_order_comes_from_the_seed() -> None:
    """Each round has every fault once, a parameter set comes after the other, and the same seed gives the same."""
    tasks = campaigns.plan(ASKED)
    assert tasks == campaigns.plan(ASKED)
    assert tasks != campaigns.plan(replace(ASKED, seed=4))
    rounds = [tasks[n : n + 5] for n in range(0, len(tasks), 5)]
    assert all(sorted(task.fault for task in one) == ["a", "b", "c", "d", "e"] for one in rounds)
    assert [(one[0].parameters, one[0].run) for one in rounds] == [
        ("site", 1), ("site", 2), ("other", 1), ("other", 2),
    ]  # fmt: skip


def test_a_cut_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed in the middle of its fourth run, even half way through a line: no run is missing, none is done twice."""
    done: list[Task] = []
    entered: list[str] = []

    @contextlib.contextmanager
    def in_force(name: str) -> Iterator[None]:
        entered.append(name)
        yield

    def once(task: Task) -> Record:
        if len(done) == 3 and len(entered) == 1:
            raise KeyboardInterrupt
        done.append(task)
        return _record(task)

    def go() -> list[Record]:
        records = campaigns.open_folder(tmp_path / "out", ASKED)
        return campaigns.go_through(
            tmp_path / "out", ASKED, records, once=once, in_force=in_force, done=lambda _record: None
        )

    with pytest.raises(KeyboardInterrupt):
        go()
    with (tmp_path / "out" / "runs.jsonl").open("a") as runs:
        runs.write('{"format": 1, "fault": "')
    records = go()
    assert done == campaigns.plan(ASKED)
    assert entered == ["site", "site", "other"]
    assert records == [_record(task) for task in done]
    assert campaigns.read_folder(tmp_path / "out") == (ASKED, records)
    assert go() == records
    assert len(done) == 20
    assert entered == ["site", "site", "other"]  # nothing left: no parameters are touched either


def test_a_folder_of_another_campaign_is_refused(tmp_path: Path) -> None:
    """The error says what differs; nothing is changed."""
    campaigns.open_folder(tmp_path, ASKED)
    before = (tmp_path / "campaign.json").read_bytes()
    with pytest.raises(CommandError) as caught:
        campaigns.open_folder(tmp_path, replace(ASKED, seed=9, faults=("a",)))
    assert str(caught.value) == (
        f"{tmp_path} holds another campaign: seed 3, given 9; faults a, b, c, d, e, given a; "
        "give another folder with --out"
    )
    assert caught.value.code is Exit.USAGE
    assert (tmp_path / "campaign.json").read_bytes() == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """A campaign is not begun among other files."""
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(CommandError, match="is not empty and holds no campaign"):
        campaigns.open_folder(tmp_path, ASKED)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    """Rather than done again and counted twice."""
    campaigns.open_folder(tmp_path, ASKED)
    (tmp_path / "runs.jsonl").write_text("{}\n")
    with pytest.raises(CommandError, match=r"runs\.jsonl, line 1: format: given null, allowed: 1"):
        campaigns.open_folder(tmp_path, ASKED)


def test_two_drills_do_not_meet_on_a_lab(tmp_path: Path) -> None:
    """The second one is refused while the first is at work."""
    with (
        campaigns.alone(tmp_path, "lab"),
        pytest.raises(CommandError, match="another drill is at work on lab"),
        campaigns.alone(tmp_path, "lab"),
    ):
        pass
    with campaigns.alone(tmp_path, "lab"):
        pass
