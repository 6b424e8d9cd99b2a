"""What a run's clocks and rows say: gaps, lost ids, two leaders, the verdict. Pure: no clock, file or host."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ops.drill_record import GAP_S, Served, Verdict

READS_GO_ON_S = 10.0
"""Where reads must go on, the longest time in seconds without one.

Three times what the address needs to move and a proxy to be started again on a machine of two busy cores, and a
fraction of the time for which the faults hold that would stop readers for good.
"""
PROMISED_RATE = 20
"""Attempts a second of each client; fewer make gaps less exact."""


@dataclass(frozen=True)
class Attempt:
    """One line of a client's log; times in seconds since the run's start."""

    number: int
    begin: float
    end: float
    how: str
    said: str

    @property
    def acknowledged(self) -> bool:
        """True when the client was told that it worked."""
        return self.how == "ok"


@dataclass(frozen=True)
class Ack:
    """A write that was acknowledged: when, by which host's PostgreSQL, on which timeline."""

    at: float
    host: str
    timeline: int


def attempts_of(text: str, began: float) -> list[Attempt]:
    """Return what a client's log says; ``began`` is the run's start on the clock of the log. A cut line is none."""
    found = []
    for line in text.rpartition("\n")[0].splitlines():
        number, begin, end, how, said = [*line.split(" ", 4), ""][:5]
        found.append(Attempt(int(number), float(begin) - began, float(end) - began, how, said))
    return found


def acks_of_writer(attempts: Iterable[Attempt], hosts: Mapping[str, str]) -> list[Ack]:
    """Return the writer's acknowledged writes; ``hosts`` names a server by the address that it tells."""
    found = []
    for attempt in attempts:
        if attempt.acknowledged:
            timeline, address = attempt.said.split()
            found.append(Ack(attempt.end, hosts.get(address, address), int(timeline)))
    return found


def served(attempts: Sequence[Attempt], *, heal: float | None, end: float) -> Served:
    """Return what one client met until ``end``, in seconds since the run's start.

    A gap lasts from one acknowledgement to the next, or to the end. One that began before the heal is of the fault,
    even when only the heal ended it.
    """
    times = [attempt.end for attempt in attempts if attempt.acknowledged]
    edges = [attempts[0].begin if attempts else 0.0, *times, max(end, *times[-1:], 0.0)]
    pairs = list(itertools.pairwise(edges))
    at_heal = [b - a for a, b in pairs if heal is not None and a >= heal]
    at_fault = [b - a for a, b in pairs if heal is None or a < heal]
    return Served(
        attempts=len(attempts),
        acknowledged=len(times),
        failed=len(attempts) - len(times),
        gaps=tuple((round(a, 3), round(b, 3)) for a, b in pairs if b - a > GAP_S),
        longest_s=max((b - a for a, b in pairs), default=0.0),
        longest_at_fault_s=max(at_fault, default=0.0),
        longest_at_heal_s=max(at_heal, default=0.0),
    )


def two_leaders(acks: Iterable[Ack]) -> int:
    """Return how many writes were acknowledged by an old leader after a new one acknowledged its first.

    A leadership is a timeline: whoever is promoted begins a new one. A host that acknowledges on a timeline that
    another began counts as well.
    """
    firsts: dict[int, Ack] = {}
    count = 0
    for ack in sorted(acks, key=lambda ack: ack.at):
        first = firsts.setdefault(ack.timeline, ack)
        newer = any(timeline > ack.timeline for timeline in firsts)
        if newer or ack.host != first.host:
            count += 1
    return count


def stopped_accepting(acks: Sequence[Ack], old: str | None, fault: float) -> float | None:
    """Return the seconds from the fault until the old leader's last acknowledgement, 0 when there was none after it.

    None when no other host acknowledged anything afterwards: it never stopped being the leader, or nobody led.
    """
    others = [ack.at for ack in acks if ack.host != old and ack.at > fault]
    if old is None or not others:
        return None
    first = min(others)
    mine = [ack.at for ack in acks if ack.host == old and ack.at < first] or [fault]
    # What the old one acknowledges on its former timeline after the new one's first is what nobody wants to see.
    former = {ack.timeline for ack in acks if ack.host == old and ack.at < first}
    late = [ack.at for ack in acks if ack.host == old and ack.at > first and ack.timeline in former]
    return max(0.0, max([*mine, *late]) - fault)


def missing(acknowledged: Iterable[int], found: Mapping[str, Iterable[int]]) -> list[int]:
    """Return the ids that were acknowledged and that at least one host does not have."""
    wanted = set(acknowledged)
    return sorted(set().union(*(wanted - set(ids) for ids in found.values()))) if found else sorted(wanted)


def moves(holders: Iterable[str | None], before: str | None) -> int:
    """Return how often the virtual address went to another host; ``holders`` in order of time."""
    hosts = [host for host in (before, *holders) if host is not None]
    return sum(a != b for a, b in itertools.pairwise(hosts))


def rate(attempts: Iterable[Attempt], until: float) -> float:
    """Return the attempts a second until a moment of the run; 0 without any."""
    quiet = [attempt.begin for attempt in attempts if attempt.begin < until]
    return len(quiet) / max(until - quiet[0], 0.001) if quiet else 0.0


def verdict(
    *,
    lost: int,
    leaders: int,
    whole: bool,
    problems: Sequence[str],
    wrong_answers: Sequence[str],
    write: Served,
    read: Served,
    reads_go_on: bool,
    target: float | None,
    rates: Mapping[str, float],
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and every reason for it that is not "right". ``rates``: attempts a second by client."""
    reasons = [*problems]
    if lost:
        reasons.append(f"{lost} acknowledged {'id is' if lost == 1 else 'ids are'} lost")
    if leaders:
        reasons.append(f"{leaders} writes acknowledged by an old leader after a new one acknowledged its first")
    if not whole:
        reasons.append("not whole again within the limit: a person would have to look")
    if wrong_answers:
        reasons.append(f"{len(wrong_answers)} answers were not right: {wrong_answers[0]}")
    if reads_go_on and read.longest_s > READS_GO_ON_S:
        reasons.append(f"reads stopped for {read.longest_s:.1f} s where they must go on (allowed: {READS_GO_ON_S} s)")
    if not write.acknowledged or not read.acknowledged:
        reasons.append("a client was never served")
    if reasons:
        return Verdict.WRONG, tuple(reasons)
    notes = [
        f"only {rate:.0f} {name} attempts a second: gaps are less exact"
        for name, rate in rates.items()
        if rate < PROMISED_RATE
    ]
    if target is not None and write.longest_s > target:
        return Verdict.ABOVE_TARGET, (f"write gap {write.longest_s:.1f} s, target {target:g} s", *notes)
    return Verdict.RIGHT, tuple(notes)
