"""How the gaps of one fault are spread over its runs: a dot a run, beside the target. Pure.

A lane for each parameter set and each of write gap at the fault, write gap at the heal, and read gap. A dot has the
colour of its run's verdict; the short line is the median.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ops import drill_svg as svg
from ops.drill_picture import MARGIN, VERDICT_KINDS
from ops.drill_record import Record

RADIUS = 4.0
STEP = 9.0
"""From one dot to the next where they would cover each other."""
LANE = 24.0
NUMBERS = 120.0
"""Room for worst and median, on the right."""


@dataclass(frozen=True)
class Lane:
    """One kind of gap with one parameter set: what it is called, and each run's seconds."""

    name: str
    values: tuple[tuple[float, Record], ...]


def lanes(records: Sequence[Record]) -> list[Lane]:
    """Return what there is to show of one fault's runs; sets in the order of their first run."""
    sets = list(dict.fromkeys(record.parameters for record in records))
    made = []
    for name in sets:
        runs = sorted((record for record in records if record.parameters == name), key=lambda record: record.run)
        begin = f"{name}: " if len(sets) > 1 else ""
        made.append(Lane(f"{begin}write, at the fault", tuple((run.write.longest_at_fault_s, run) for run in runs)))
        healed = tuple((run.write.longest_at_heal_s, run) for run in runs if run.phases.heal is not None)
        made += [Lane(f"{begin}write, at the heal", healed)] if healed else []
        made.append(Lane(f"{begin}read", tuple((run.read.longest_s, run) for run in runs)))
    return made


def levels(places: Sequence[float]) -> list[int]:
    """Return for each x (ascending) the first level on which its dot covers no other."""
    made: list[int] = []
    ends: list[float] = []
    for x in places:
        level = next((n for n, end in enumerate(ends) if x - end >= 2 * RADIUS), len(ends))
        ends[level : level + 1] = [x]
        made.append(level)
    return made


def strips(records: Sequence[Record], *, styled: bool = True) -> str:
    """Return the gaps of the runs of one fault as SVG; ValueError without any run."""
    if not records:
        message = "no run to draw"
        raise ValueError(message)
    canvas = svg.Canvas()
    shown = lanes(records)
    target = min((record.target_s for record in records if record.target_s is not None), default=None)
    longest = max(value for lane in shown for value, _ in lane.values)
    end = max(longest, target or 0.0, 0.1) * 1.05
    left = MARGIN + min(max(svg.width_of(lane.name) for lane in shown), 260.0) + 10
    right = svg.WIDTH - MARGIN - NUMBERS

    def x(second: float) -> float:
        return left + (right - left) * second / end

    y = top = MARGIN + (14 if target is not None else 0)
    dots = svg.Canvas()
    for lane in shown:
        runs = sorted(lane.values, key=lambda pair: (pair[0], pair[1].run))
        placed = levels([x(value) for value, _ in runs])
        height = max(LANE, (max(placed) + 1) * STEP + 2 * RADIUS)
        middle = y + height / 2
        lowest = middle + max(placed) * STEP / 2
        canvas.line(left, middle, right, middle, "grid")
        canvas.text(left - 10, middle + 4, svg.fitted(lane.name, left - MARGIN - 10), anchor="end")
        values = [value for value, _ in runs]
        median = statistics.median(values)
        dots.line(x(median), y + 3, x(median), y + height - 3, "muted", width=2)
        for (value, run), level in zip(runs, placed, strict=True):
            said = f"{lane.name}, run {run.run}: {value:.2f} s, {run.verdict}"
            dots.dot(x(value), lowest - level * STEP, RADIUS, VERDICT_KINDS[run.verdict], title=said)
        numbers = f"{max(values):.1f} s" if len(values) == 1 else f"{max(values):.1f} ({median:.1f}) s"
        canvas.text(svg.WIDTH - MARGIN, middle + 4, numbers, "muted", anchor="end")
        y += height
    canvas.line(left, y, right, y, "muted")
    for second in svg.ticks(end, most=12):
        canvas.line(x(second), y, x(second), y + 4, "muted")
        canvas.text(x(second), y + 17, f"{second:g}", "muted", anchor="middle", size=11)
    canvas.text(left - 10, y + 17, "seconds", "muted", anchor="end", size=11)
    if target is not None:
        canvas.line(x(target), top - 4, x(target), y, "wrong", dashes="5 3", width=1.5)
        label = f"target of the write gap {target:.1f} s"
        (place,) = svg.in_lanes([(x(target), label)], left, right)
        canvas.text(place.x, top - 6, label, "wrong", anchor=place.anchor)
    canvas.shapes += dots.shapes
    fault = records[0].fault
    return canvas.svg(
        y + 26,
        title=f"{fault}: gaps of {len(records)} runs",
        description=f"longest {longest:.1f} s" + ("" if target is None else f", target {target:.1f} s"),
        styled=styled,
    )
