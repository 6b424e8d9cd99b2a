"""Records of drills: what is written is read again, and what is wrong in them is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.drill_record import (
    Campaign,
    Event,
    Phases,
    Places,
    Record,
    RecordError,
    Served,
    Verdict,
    What,
    campaign_of,
    record_of,
    records_of,
    to_json,
)

PLACES = Places(leader="a", sync_standby="b", vip="a", etcd_leader=None)
SERVED = Served(
    attempts=10,
    acknowledged=9,
    failed=1,
    gaps=((1.0, 3.125),),
    longest_s=2.125,
    longest_at_fault_s=2.125,
    longest_at_heal_s=0.0,
)
RECORD = Record(
    fault="leader-power-off",
    run=1,
    seed=7,
    parameters="site",
    stack="lab",
    started="2026-11-23T14:00:00Z",
    load=1.25,
    before=PLACES,
    after=PLACES,
    target="a",
    phases=Phases(fault=10.0, heal=None, whole=55.25, end=65.0),
    events=(Event(at=12.5, host=None, what=What.VIP, value=None),),
    write=SERVED,
    read=SERVED,
    lost=(3,),
    two_leaders=0,
    stopped_accepting_s=None,
    rejoin_s=45.25,
    vip_moves=1,
    manual_steps=0,
    target_s=27.0,
    verdict=Verdict.WRONG,
    reasons=("1 id lost",),
)


def test_a_record_survives_its_line() -> None:
    """Every field, also the empty ones, comes back as it was."""
    assert record_of(to_json(RECORD), source="runs.jsonl", line=1) == RECORD
    campaign = Campaign(stack="lab", seed=1, faults=("switchover",), runs=3, parameters=("site", "other"))
    assert campaign_of(to_json(campaign), source="campaign.json") == campaign


def _with(path: str, value: Any) -> str:
    data = json.loads(to_json(RECORD))
    *parents, name = path.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, "format: given 2, allowed: 1"),
        ("fault", ..., "fault is missing"),
        ("before.vip", ..., "before.vip is missing"),
        ("more", 1, "more: unknown, allowed: format, fault, "),
        ("run", True, "run: given true, allowed: a whole number"),
        ("load", "1", 'load: given "1", allowed: a number'),
        ("verdict", "good", 'verdict: given "good", allowed: right, above target, wrong'),
        ("write.gaps", [[1, 2, 3]], "write.gaps[0]: given [1, 2, 3], allowed: 2 values"),
        ("events", [{"at": 1.0, "host": 3, "what": "vip", "value": None}], "events[0].host: given 3, allowed: text"),
        ("phases", None, "phases: given null, allowed: an object with fault, heal, whole, end"),
    ],
)
def test_a_wrong_record_is_named_by_line_and_value(path: str, value: Any, message: str) -> None:
    """The error says where it is, what was given and what is allowed."""
    text = to_json(RECORD) + "\n" + _with(path, value) + "\n"
    with pytest.raises(RecordError) as caught:
        records_of(text, source="runs.jsonl")
    assert str(caught.value).startswith("runs.jsonl, line 2: " + message)


def test_what_is_not_json_is_said() -> None:
    """A line of something else is an error with its place."""
    with pytest.raises(RecordError, match=r"runs\.jsonl, line 1: not JSON"):
        records_of("what\n", source="runs.jsonl")


def test_a_line_that_was_cut_off_counts_as_not_there() -> None:
    """A campaign that was killed while it wrote has every whole record and nothing else."""
    line = to_json(RECORD)
    assert records_of(f"{line}\n{line[:50]}", source="runs.jsonl") == [RECORD]
    assert records_of(line, source="runs.jsonl") == []
