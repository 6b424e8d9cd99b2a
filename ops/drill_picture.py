"""One run of a drill as a picture: who was what, who had the address, who was served, against seconds. Pure.

A row for each database node (leader, replica, gone), one for the holder of the virtual address, one for etcd's
leader, one for the writer and one for the reader with every time without an acknowledgement in red; fault, heal and
the moment from which all was whole again as vertical lines. It says nothing that the record does not say: between two
gaps a client was acknowledged at least every 0.3 s, not more is known of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ops import drill_svg as svg
from ops.drill_record import GAP_S, Event, Record, Served, Verdict, What

MARGIN = 16.0
BAR = 20.0
ROW = 30.0
LANE = 16.0
LINE = 17.0
NOTES = 12
"""Most notes that are written out."""
LABEL_ROOM = 190.0
"""Most room for the names of the rows."""
ROUNDING = 0.002
"""Seconds by which the length of a gap and the difference of its edges, both to the millisecond, may differ."""
VERDICT_KINDS = {Verdict.RIGHT: "right", Verdict.ABOVE_TARGET: "above", Verdict.WRONG: "wrong"}
ROLES = ("leader", "replica", "gone")


@dataclass(frozen=True)
class Span:
    """Something that was so for a time; ``value`` None: nobody, or not known."""

    start: float
    end: float
    value: str | None


def spans(first: str | None, changes: Iterable[tuple[float, str | None]], end: float) -> list[Span]:
    """Return what was so from 0 to ``end``, given what it was at first and every change."""
    made: list[Span] = []
    since, value = 0.0, first
    for at, new in sorted(changes, key=lambda change: change[0]):
        moment = min(max(at, 0.0), end)
        if new == value:
            continue
        if moment > since:
            made.append(Span(since, moment, value))
        since, value = moment, new
    if end > since:
        made.append(Span(since, end, value))
    return made


def roles(record: Record) -> dict[str, list[Span]]:
    """Return what each database node was, by its name."""
    seen = [event for event in record.events if event.what is What.ROLE and event.host]
    places = (record.before, record.after)
    hosts = {event.host for event in seen if event.host}
    hosts |= {name for place in places for name in (place.leader, place.sync_standby) if name}
    first = {record.before.sync_standby: "replica", record.before.leader: "leader"}
    return {
        host: spans(
            first.get(host), [(event.at, event.value) for event in seen if event.host == host], record.phases.end
        )
        for host in sorted(hosts)
    }


def holders(record: Record, what: What) -> list[Span]:
    """Return which host had the virtual address (``What.VIP``) or led etcd, and when."""
    first = record.before.vip if what is What.VIP else record.before.etcd_leader
    return spans(first, [(event.at, event.host) for event in record.events if event.what is what], record.phases.end)


def headline(record: Record) -> str:
    """Return fault, number of the run and parameter set in a few words."""
    return f"{record.fault}, run {record.run}, parameters {record.parameters}"


def facts(record: Record) -> list[str]:
    """Return what was measured in a run, a few words each."""
    healed = record.phases.heal is not None
    write = f"longest write gap {record.write.longest_at_fault_s:.1f} s"
    if healed:
        write += f", at the heal {record.write.longest_at_heal_s:.1f} s"
    if record.target_s is not None:
        write += f" (target {record.target_s:.1f} s)"
    whole = "never whole again" if record.rejoin_s is None else f"whole again after {record.rejoin_s:.1f} s"
    stopped = record.stopped_accepting_s
    return [
        write,
        f"read gap {record.read.longest_s:.1f} s",
        f"ids lost: {len(record.lost)}",
        f"writes by two leaders: {record.two_leaders}",
        *([f"old leader stopped after {stopped:.1f} s"] if stopped is not None else []),
        whole,
        f"moves of the address: {record.vip_moves}",
        f"manual steps: {record.manual_steps}",
        f"load {record.load:.1f}",
    ]


def timeline(record: Record, *, styled: bool = True) -> str:
    """Return the run as SVG; the same record gives the same bytes.

    ``styled`` False leaves the dark colours to the page around it (`ops.drill_svg.STYLE`).
    """
    return _Timeline(record).drawn(styled=styled)


class _Timeline:
    """The picture while it is drawn, from top to bottom."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.canvas = svg.Canvas()
        self.roles = roles(record)
        places = (record.before, record.after)
        others = {place.vip for place in places} | {place.etcd_leader for place in places}
        others |= {event.host for event in record.events}
        self.hosts = sorted(self.roles.keys() | {name for name in others if name})
        self.common = _common(self.hosts)
        room = max((svg.width_of(host) for host in self.roles), default=0.0)
        self.left = MARGIN + min(max(room, svg.width_of("virtual address")), LABEL_ROOM) + 10
        self.right = svg.WIDTH - MARGIN
        self.end = max(record.phases.end, 0.001)
        self.y = MARGIN

    def x(self, second: float) -> float:
        return self.left + (self.right - self.left) * min(max(second, 0.0), self.end) / self.end

    def short(self, host: str) -> str:
        return host[len(self.common) :] or host

    def drawn(self, *, styled: bool) -> str:
        self._head()
        marks = self._marks()
        top = self.y
        bars = svg.Canvas()
        self.canvas, page = bars, self.canvas
        for host, spent in self.roles.items():
            self._row(
                host, "", [(span, span.value if span.value in ROLES else "unknown", span.value) for span in spent]
            )
        for what, name in ((What.VIP, "virtual address"), (What.ETCD_LEADER, "etcd's leader")):
            held = holders(self.record, what)
            self._row(name, "", [(span, self._kind(span.value), self._holder(span.value)) for span in held])
        self._client("writes", self.record.write)
        self._client("reads", self.record.read)
        bottom = self.y
        self.canvas = page
        self._axis(top, bottom)
        page.shapes += bars.shapes
        for second, kind, dashes in marks:
            page.line(self.x(second), top - 4, self.x(second), bottom, kind, dashes=dashes, width=1.5)
        page.shapes += self.plates.shapes
        self._legend()
        self._notes()
        said = [
            f"{self.record.verdict}: {'; '.join(self.record.reasons)}" if self.record.reasons else self.record.verdict
        ]
        return page.svg(
            self.y + 8,
            title=headline(self.record),
            description=". ".join([*said, *facts(self.record)]),
            styled=styled,
        )

    def _head(self) -> None:
        """Title, verdict, what was measured, and why it is judged as it is."""
        verdict, kind = str(self.record.verdict), VERDICT_KINDS[self.record.verdict]
        room = self.right - MARGIN
        size = 15.0
        self.y += 10
        title = svg.fitted(headline(self.record), room - svg.width_of(verdict, size) - 20, size)
        self.canvas.text(MARGIN, self.y, title, size=size, bold=True)
        self.canvas.text(self.right, self.y, verdict, kind, anchor="end", size=size, bold=True)
        self.y += 4
        for line in svg.lines_of(facts(self.record), room):
            self.y += LINE
            self.canvas.text(MARGIN, self.y, line, "muted")
        for reason in self.record.reasons[:4]:
            self.y += LINE
            self.canvas.text(MARGIN, self.y, svg.fitted(reason, room), kind)
        self.y += 8

    def _marks(self) -> list[tuple[float, str, str]]:
        """Write the names of the vertical lines; return the lines: second, colour, dashes."""
        phases = self.record.phases
        named = [(phases.fault, "fault", "fault", "")]
        named += [(phases.heal, "heal", "heal", "6 3")] if phases.heal is not None else []
        named += [(phases.whole, "whole", "whole again", "2 3")] if phases.whole is not None else []
        labels = svg.in_lanes(
            [(self.x(second), f"{name} {second:.1f} s") for second, _, name, _ in named], self.left, self.right
        )
        base = self.y + LANE - 4
        for label, (_, kind, _, _) in zip(labels, named, strict=True):
            self.canvas.text(label.x, base + label.lane * LANE, label.text, kind, anchor=label.anchor)
        self.y = base + max(label.lane for label in labels) * LANE + 12
        lines = [(second, kind, dashes) for second, kind, _, dashes in named]
        for event in self.record.events:
            if event.what in (What.FAULT, What.HEAL) and all(abs(event.at - at) > GAP_S for at, _, _ in lines):
                lines.append((event.at, str(event.what), "1 4"))
        self.plates = svg.Canvas()
        return lines

    def _kind(self, host: str | None) -> str:
        return "nobody" if host is None else f"host{self.hosts.index(host) % 3}"

    def _holder(self, host: str | None) -> str:
        return "nobody" if host is None else self.short(host)

    def _row(self, name: str, below: str, parts: Sequence[tuple[Span, str, str | None]]) -> None:
        self._name(name, below)
        for span, kind, value in parts:
            x, width = self.x(span.start), self.x(span.end) - self.x(span.start)
            word = value or "not known"
            title = f"{name}: {word}, {span.start:.1f} to {span.end:.1f} s"
            self.canvas.rect(x, self.y, width, BAR, kind, title=title)
            place = self._free(span, svg.width_of(word))
            if place is not None:
                self.plates.text(place, self.y + 14, word, svg.INSIDE[kind], anchor="middle")
        self.y += ROW

    def _free(self, span: Span, room: float) -> float | None:
        """Return the middle of the widest part of a span that no vertical line crosses, if a text has room there."""
        phases = self.record.phases
        cuts = [
            at for at in (phases.fault, phases.heal, phases.whole) if at is not None and span.start < at < span.end
        ]
        edges = [self.x(second) for second in sorted([span.start, *cuts, span.end])]
        widest = max(itertools.pairwise(edges), key=lambda pair: pair[1] - pair[0])
        return (widest[0] + widest[1]) / 2 if widest[1] - widest[0] >= room + 8 else None

    def _name(self, name: str, below: str) -> None:
        shown = svg.fitted(name, self.left - MARGIN - 10)
        self.canvas.text(self.left - 10, self.y + (10 if below else 14), shown, anchor="end")
        if below:
            self.canvas.text(self.left - 10, self.y + 23, below, "muted", anchor="end", size=10)

    def _client(self, name: str, served: Served) -> None:
        """Draw a client's row: a thin band while it was served, red and high where it was not."""
        self._name(name, f"{served.acknowledged} of {served.attempts}")
        x = self.x(0)
        done = f"{name}: {served.acknowledged} acknowledged, {served.failed} of {served.attempts} attempts failed"
        self.canvas.rect(x, self.y + 6, self.right - x, BAR - 12, "served", title=done)
        longest = max((end - start for start, end in served.gaps), default=0.0)
        taken: list[tuple[float, float]] = []
        for start, end in sorted(served.gaps, key=lambda gap: (gap[0] - gap[1], gap[0])):
            length = end - start
            if abs(length - served.longest_s) <= ROUNDING:
                length = served.longest_s  # so that it reads as everywhere else
            left, width = self.x(start), self.x(end) - self.x(start)
            title = f"{name}: nothing acknowledged for {length:.2f} s, {start:.1f} to {end:.1f} s"
            self.canvas.rect(left, self.y, width, BAR, "gap", title=title, radius=1)
            text = f"{length:.1f} s"
            room = svg.width_of(text, 11)
            place = min(max(left + width / 2 - room / 2, self.left), self.right - room)
            # The longest ones say how long; what would touch their words is told by the picture and its titles.
            if all(place > right + 8 or place + room < other - 8 for other, right in taken):
                taken.append((place, place + room))
                self.plates.plate(place, self.y + BAR + 13, text, "gap" if length < longest else "wrong", size=11)
        self.y += ROW + 12

    def _axis(self, top: float, bottom: float) -> None:
        self.canvas.line(self.left, bottom, self.right, bottom, "muted")
        for second in svg.ticks(self.end):
            x = self.x(second)
            self.canvas.line(x, top - 4, x, bottom, "grid")
            self.canvas.line(x, bottom, x, bottom + 4, "muted")
            self.canvas.text(x, bottom + 17, f"{second:g}", "muted", anchor="middle", size=11)
        self.canvas.text(self.left - 10, bottom + 17, "seconds", "muted", anchor="end", size=11)
        self.y = bottom + 34

    def _legend(self) -> None:
        entries = [("leader", "leader"), ("replica", "replica"), ("gone", "gives no answer")]
        entries += [(self._kind(host), self.short(host)) for host in self.hosts]
        entries += [("nobody", "nobody"), ("served", "served"), ("gap", f"no acknowledgement for over {GAP_S:g} s")]
        x = self.left
        for kind, name in entries:
            room = 16 + svg.width_of(name, 11) + 10
            if x > self.left and x + room > self.right:
                x, self.y = self.left, self.y + LINE
            self.canvas.rect(x, self.y, 11, 11, kind)
            self.canvas.text(x + 16, self.y + 10, name, "muted", size=11)
            x += room
        self.y += 18

    def _notes(self) -> None:
        """Write out what else was noted, in its order."""
        noted = [event for event in self.record.events if event.what is What.NOTE]
        for event in noted[:NOTES]:
            self.y += LINE
            self.canvas.text(self.left - 10, self.y, f"{event.at:.1f} s", "muted", anchor="end")
            self.canvas.text(self.left, self.y, svg.fitted(self._note(event), self.right - self.left))
        if len(noted) > NOTES:
            self.y += LINE
            self.canvas.text(self.left, self.y, f"and {len(noted) - NOTES} notes more", "muted")
        self.y += 4 if noted else 0

    def _note(self, event: Event) -> str:
        return f"{self.short(event.host)}: {event.value or ''}" if event.host else event.value or ""


def _common(hosts: Sequence[str]) -> str:
    """Return what all names begin with, up to a dash: the site's name. What is left is never a number only."""
    parts = [host.split("-") for host in hosts]
    kept = 0
    while len(hosts) > 1 and all(
        len(name) > kept + 1 and name[kept] == parts[0][kept] and not "".join(name[kept + 1 :]).isdigit()
        for name in parts
    ):
        kept += 1
    return "".join(f"{part}-" for part in parts[0][:kept]) if kept else ""
