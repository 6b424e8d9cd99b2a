"""What a drill's clocks and rows say: gaps, two leaders, lost ids, the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ops import drill_measure as measure
from ops.drill_measure import Ack, Attempt
from ops.drill_record import Served, Verdict


def _log(*ends: float, failed: tuple[float, ...] = ()) -> list[Attempt]:
    made = [Attempt(0, end - 0.01, end, "ok", "1 a") for end in ends]
    made += [Attempt(0, end - 2, end, "failed", "TooSlowError") for end in failed]
    return sorted(made, key=lambda attempt: attempt.end)


def test_a_log_is_read_up_to_its_last_whole_line() -> None:
    """Times are told from the run's start; a line that was cut off is no attempt; a reason may have spaces."""
    text = "1 100.5 100.75 ok 3 172.30.30.10\n2 101 103 failed OperationalError no answer\n3 103.5 104 ok\n4 10"
    assert measure.attempts_of(text, 100.0) == [
        Attempt(1, 0.5, 0.75, "ok", "3 172.30.30.10"),
        Attempt(2, 1.0, 3.0, "failed", "OperationalError no answer"),
        Attempt(3, 3.5, 4.0, "ok", ""),
    ]


def test_gaps_lie_between_acknowledgements_whatever_failed_meanwhile() -> None:
    """A failed attempt neither ends a gap nor begins one."""
    served = measure.served(_log(1.0, 1.1, 5.0, 5.1, failed=(3.0, 4.9)), heal=None, end=5.2)
    assert served.gaps == ((1.1, 5.0),)
    assert (served.attempts, served.acknowledged, served.failed) == (6, 4, 2)
    assert served.longest_s == served.longest_at_fault_s == pytest.approx(3.9)
    assert served.longest_at_heal_s == 0.0


def test_who_is_never_served_again_has_a_gap_to_the_end() -> None:
    """The worst gap of all must not be missed because nothing ends it."""
    served = measure.served(_log(1.0, failed=(3.0, 5.0)), heal=None, end=30.0)
    assert served.gaps == ((1.0, 30.0),)
    assert measure.served([], heal=None, end=30.0).longest_s == 30.0


def test_a_gap_that_only_the_heal_ended_is_of_the_fault() -> None:
    """Gaps that begin after the heal are told by themselves: that is what the way back costs."""
    served = measure.served(_log(1.0, 9.0, 9.1, 10.0), heal=8.0, end=10.0)
    assert served.longest_at_fault_s == 8.0
    assert served.longest_at_heal_s == pytest.approx(0.9)


def test_a_clean_change_of_leader_counts_nothing() -> None:
    """Also when the old one comes to lead again later, on a timeline of its own."""
    acks = [Ack(1.0, "a", 1), Ack(2.0, "a", 1), Ack(5.0, "b", 2), Ack(6.0, "b", 2), Ack(9.0, "a", 3)]
    assert measure.two_leaders(acks) == 0


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(Ack(5.5, "a", 1), id="old timeline after the new one's first"),
        pytest.param(Ack(5.5, "a", 2), id="another host on the same timeline"),
    ],
)
def test_an_acknowledgement_of_a_second_leader_is_counted(late: Ack) -> None:
    """Whoever told it, a client or a prober, and in whatever order the records come."""
    acks = [late, Ack(1.0, "a", 1), Ack(5.0, "b", 2), Ack(6.0, "b", 2)]
    assert measure.two_leaders(acks) == 1


def test_when_the_old_leader_stopped() -> None:
    """Its last acknowledgement, from the fault on; what it acknowledges as a later leader is not meant."""
    acks = [Ack(1.0, "a", 1), Ack(10.4, "a", 1), Ack(30.0, "b", 2), Ack(50.0, "a", 3)]
    assert measure.stopped_accepting(acks, "a", 10.0) == pytest.approx(0.4)
    assert measure.stopped_accepting(acks, "a", 11.0) == 0.0
    assert measure.stopped_accepting([*acks, Ack(31.0, "a", 1)], "a", 10.0) == 21.0
    assert measure.stopped_accepting(acks[:2], "a", 10.0) is None


def test_an_id_is_lost_when_one_host_does_not_have_it() -> None:
    """Rows that nobody was told of are no matter."""
    assert measure.missing({1, 2, 3}, {"a": [1, 2, 3, 4], "b": [1, 3]}) == [2]
    assert measure.missing({1}, {"a": [1], "b": [1, 2]}) == []
    assert measure.missing({1}, {}) == [1]


def test_moves_of_the_address() -> None:
    """Only to another host; not seen for a while is no move."""
    assert measure.moves(["a", None, "a"], "a") == 0
    assert measure.moves(["b", "b", "a"], "a") == 2
    assert measure.moves(["b"], None) == 0


FINE = Served(
    attempts=100, acknowledged=90, failed=10, gaps=(), longest_s=2.0, longest_at_fault_s=2.0, longest_at_heal_s=0.1
)
RIGHT: dict[str, Any] = {
    "lost": 0,
    "leaders": 0,
    "whole": True,
    "problems": [],
    "wrong_answers": [],
    "write": FINE,
    "read": FINE,
    "reads_go_on": True,
    "target": 3.0,
    "rates": {"write": 30.0, "read": 30.0},
}
SLOW = replace(FINE, longest_s=20.0)


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ({}, Verdict.RIGHT, ""),
        ({"rates": {"write": 3.0}}, Verdict.RIGHT, "only 3 write attempts a second"),
        ({"write": SLOW}, Verdict.ABOVE_TARGET, "write gap 20.0 s, target 3 s"),
        ({"write": SLOW, "target": None}, Verdict.RIGHT, ""),
        ({"read": SLOW, "reads_go_on": False}, Verdict.RIGHT, ""),
        ({"read": SLOW}, Verdict.WRONG, "reads stopped for 20.0 s"),
        ({"lost": 1}, Verdict.WRONG, "1 acknowledged id is lost"),
        ({"leaders": 2}, Verdict.WRONG, "2 writes acknowledged by an old leader"),
        ({"whole": False}, Verdict.WRONG, "not whole again"),
        ({"wrong_answers": ["x has []"]}, Verdict.WRONG, "1 answers were not right: x has []"),
        ({"problems": ["the rows could not be looked at"]}, Verdict.WRONG, "the rows could not be looked at"),
        ({"write": replace(FINE, acknowledged=0)}, Verdict.WRONG, "a client was never served"),
    ],
)
def test_the_verdict_and_its_reasons(change: dict[str, Any], verdict: Verdict, reason: str) -> None:
    """A slow gap is never wrong; a lost id, two leaders, never whole, stopped reads and wrong answers are."""
    found, reasons = measure.verdict(**(RIGHT | change))
    assert found is verdict
    assert any(text.startswith(reason) for text in reasons) if reason else reasons == ()
