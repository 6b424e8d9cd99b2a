"""The drill's table: what its numbers are, on a terminal, in a pipe and in Markdown."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Literal

from rich.console import Console

from ops import drill_table
from ops.drill_record import Record, Verdict
from tests.unit.ops.drill_samples import campaign, power_off, served, switchover, wrong


def cells(records: Sequence[Record], **order: Sequence[str]) -> list[dict[str, str]]:
    """Return the Markdown table as it is read: a mapping from heading to cell, one a row."""
    heading, rule, *lines = drill_table.markdown(drill_table.rows(records, **order)).splitlines()
    assert re.fullmatch(r"(\|(---|--:))+\|", rule)
    names = [name.strip() for name in heading.strip("|").split("|")]
    return [
        dict(zip(names, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]], strict=True)) for line in lines
    ]


def shown(records: Sequence[Record], *, terminal: bool, width: int = 130) -> str:
    """Return what is printed."""
    out = io.StringIO()
    colours: Literal["standard", "auto"] = "standard" if terminal else "auto"
    console = Console(file=out, force_terminal=terminal, width=width, highlight=False, color_system=colours)
    drill_table.show(records, console)
    return out.getvalue()


def test_a_row_is_a_fault_with_a_parameter_set_and_counts_its_runs() -> None:
    found = {(row["fault"], row["parameters"]): row for row in cells(campaign())}
    assert set(found) == {
        ("leader-power-off", "site"),
        ("leader-power-off", "autobase"),
        ("switchover", "site"),
        ("leader-frozen", "site"),
    }
    counted = ("runs", "right", "above target", "wrong", "ids lost", "two leaders", "manual steps")
    assert [found["leader-power-off", "site"][name] for name in counted] == ["3", "3", "0", "0", "0", "0", "0"]
    assert [found["leader-power-off", "autobase"][name] for name in counted] == ["1", "0", "1", "0", "0", "0", "0"]
    assert [found["leader-frozen", "site"][name] for name in counted] == ["1", "0", "0", "1", "2", "3", "0"]


def test_times_are_the_worst_with_the_median_in_brackets() -> None:
    found = cells([run for run in campaign() if run.fault == "leader-power-off" and run.parameters == "site"])
    (row,) = found
    assert "parameters" not in row, "one set needs no column"
    assert row["write gap at fault"] == "26.1 (21.3)"
    assert row["at heal"] == "0.4 (0.4)"
    assert (row["target"], row["worst read gap"], row["old leader stopped"]) == ("27.0", "1.9", "0.0")
    assert (row["whole again"], row["VIP moves"]) == ("15.2 (15.2)", "1")


def test_a_gap_of_two_seconds_is_shown_as_that_and_one_that_heals_itself_has_none_at_the_heal() -> None:
    (row,) = cells([switchover()])
    assert row["write gap at fault"] == "2.1"
    assert row["at heal"] == "-"


def test_a_run_that_is_never_whole_is_not_left_out_of_the_worst() -> None:
    assert cells([wrong()])[0]["whole again"] == "never (1 of 1)"
    (row,) = cells([wrong(), dataclasses.replace(wrong(), run=3, rejoin_s=12.0, vip_moves=0)])
    assert row["whole again"] == "never (1 of 2), else 12.0"
    assert row["VIP moves"] == "0 to 2"
    assert row["old leader stopped"] == "-"


def test_faults_come_in_the_order_that_was_asked_for() -> None:
    asked = [row["fault"] for row in cells(campaign(), faults=["switchover", "leader-power-off"])]
    assert asked == ["switchover", "leader-power-off", "leader-power-off", "leader-frozen"]
    backwards = list(reversed(campaign()))
    assert [row["fault"] for row in cells(backwards)] == ["leader-frozen", *["leader-power-off"] * 2, "switchover"]


def test_names_cannot_break_the_markdown() -> None:
    (row,) = cells([dataclasses.replace(switchover(), fault="a|b\nc")])
    assert row["fault"] == "a\\|b c"


def test_colours_only_on_a_terminal() -> None:
    assert "\x1b[" not in shown(campaign(), terminal=False)
    on_terminal = shown(campaign(), terminal=True)
    assert "\x1b[1;31m0/0/1" in re.sub(r" +", "", on_terminal), "wrong runs are red"
    assert "\x1b[33m36.4" in re.sub(r" +", "", on_terminal), "what is above its target is yellow"


def test_a_pipe_gets_every_cell_whole_and_a_row_in_one_line() -> None:
    said = shown(campaign(), terminal=False, width=20)
    lines = [line for line in said.splitlines() if line.startswith("leader-power-off")]
    assert [line.split()[:4] for line in lines] == [
        ["leader-power-off", "site", "3", "3/0/0"],
        ["leader-power-off", "autobase", "1", "0/1/0"],
    ]
    assert "26.1 (21.3)" in lines[0]


def test_on_a_narrow_terminal_nothing_is_cut() -> None:
    said = shown(campaign(), terminal=True, width=60)
    for whole in ("leader-power-off", "26.1 (21.3)", "never (1 of 1)"):
        assert whole in said


def test_no_run_yet_is_said() -> None:
    assert shown([], terminal=False).strip() == "no run is finished yet"


def test_a_gap_above_the_target_stands_out_at_either_moment() -> None:
    late = power_off(write=served((10.0, 12.0), (41.0, 70.0), heal=40.0))
    said = shown([late], terminal=True)
    assert re.search(r"\x1b\[33m *29\.0\x1b", said)
    assert not re.search(r"\x1b\[33m *2\.0\x1b", said)
    assert "29.0" in shown([dataclasses.replace(late, target_s=None)], terminal=True)
    assert "\x1b[33m" not in shown(
        [dataclasses.replace(late, target_s=None), power_off(target_s=None)], terminal=True
    )


def test_a_row_is_as_bad_as_its_worst_run() -> None:
    (row,) = drill_table.rows([power_off(), wrong(fault="leader-power-off")])
    assert row.verdict is Verdict.WRONG
    assert drill_table.rows([power_off()])[0].verdict is Verdict.RIGHT
