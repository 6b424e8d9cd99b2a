"""The picture of a run: what stands where, that words do not touch, and that nothing in it comes from elsewhere."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

from ops import drill_picture, drill_svg
from ops.drill_record import Event, Phases, Record, Verdict, What
from tests.unit.ops.drill_samples import DB1, DB2, WITNESS, campaign, power_off, served, switchover, wrong

SVG = "{http://www.w3.org/2000/svg}"


class Picture:
    """A drawn run, looked at as a reader would."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.source = drill_picture.timeline(record)
        self.root = ET.fromstring(self.source)  # noqa: S314 -- drawn a line above
        self.texts = [text for text in self.root.iter(f"{SVG}text") if text.text]

    def words(self) -> list[str]:
        return [text.text or "" for text in self.texts]

    def shapes(self, kind: str, title: str = "") -> list[tuple[float, float]]:
        """Return from and to, in seconds, of each bar of this colour that says this when pointed at."""
        found = []
        for rect in self.root.iter(f"{SVG}rect"):
            said = rect.findtext(f"{SVG}title") or ""
            if rect.get("class") == f"f-{kind}" and said and title in said:
                left = float(rect.get("x", ""))
                found.append((self.second(left), self.second(left + float(rect.get("width", "")))))
        return sorted(found)

    def lines(self, kind: str) -> list[float]:
        """Return the seconds at which upright lines of this colour stand."""
        return [
            self.second(float(line.get("x1", "")))
            for line in self.root.iter(f"{SVG}line")
            if line.get("class") == f"s-{kind}" and line.get("x1") == line.get("x2")
        ]

    def second(self, x: float) -> float:
        """Return the second at ``x``, as the numbers of the axis say."""
        written = {t.text: float(t.get("x", "")) for t in self.texts if t.get("font-size") == "11"}
        numbers = sorted((float(text), at) for text, at in written.items() if text and re.fullmatch(r"[\d.]+", text))
        (first, start), (last, stop) = numbers[0], numbers[-1]
        return first + (x - start) / (stop - start) * (last - first)

    def boxes(self) -> Iterator[tuple[str, float, float, float, float]]:
        """Yield every text with the room that it may take: left, right, top, bottom."""
        for text in self.texts:
            size = float(text.get("font-size", drill_svg.FONT))
            room = drill_svg.width_of(text.text or "", size)
            x, y = float(text.get("x", "")), float(text.get("y", ""))
            left = x - {"start": 0.0, "middle": room / 2, "end": room}[text.get("text-anchor", "start")]
            yield text.text or "", left, left + room, y - 0.75 * size, y + 0.2 * size


def near(found: list[tuple[float, float]], *expected: tuple[float, float]) -> bool:
    """Say whether these are the bars, to a tenth of a second and a bit."""
    pairs = zip(found, expected, strict=True)
    return all(abs(a - c) < 0.2 and abs(b - d) < 0.2 for (a, b), (c, d) in pairs)


def test_a_gap_is_red_from_its_beginning_to_its_end_and_says_how_long_it_is() -> None:
    picture = Picture(switchover())
    assert near(picture.shapes("gap", "writes"), (10.3, 12.4))
    assert picture.shapes("gap", "reads") == []
    assert "2.1 s" in picture.words()
    assert near(picture.shapes("served", "writes"), (0, 25))


def test_the_longest_gap_reads_as_in_the_table() -> None:
    """Its edges are rounded to milliseconds, and so is its length, which may be the next one."""
    read = dataclasses.replace(served((10.893, 13.543), end=25.0), longest_s=2.651, longest_at_fault_s=2.651)
    words = Picture(switchover(read=read)).words()
    assert "2.7 s" in words
    assert any("read gap 2.7 s" in word for word in words)
    assert "2.6 s" not in words


def test_fault_heal_and_whole_stand_where_they_were() -> None:
    picture = Picture(power_off())
    for kind, at, says in (("fault", 10.0, "fault 10.0 s"), ("heal", 40.0, "heal 40.0 s"), ("whole", 55.2, "55.2 s")):
        assert picture.lines(kind) == [pytest.approx(at, abs=0.1)]
        assert any(says in word for word in picture.words())
    heals_itself = Picture(switchover())
    assert heals_itself.lines("heal") == []
    assert not [word for word in heals_itself.words() if word.startswith("heal")]


def test_a_second_fault_of_the_same_run_has_a_line_of_its_own() -> None:
    more = (*power_off().events, Event(at=20.0, host=DB2, what=What.FAULT, value="etcd stopped"))
    assert Picture(power_off(events=more)).lines("fault") == [pytest.approx(at, abs=0.1) for at in (10.0, 20.0)]


def test_who_led_and_who_was_gone() -> None:
    picture = Picture(power_off())
    assert near(picture.shapes("leader", DB1), (0, 10.1))
    assert near(picture.shapes("gone", DB1), (10.1, 44.4))
    assert near(picture.shapes("leader", DB2), (30.1, 65))
    assert picture.words().count("leader") == 3, "two bars and the legend"


def test_the_holder_of_the_address_and_etcds_leader_are_named() -> None:
    picture = Picture(power_off())
    assert near(picture.shapes("host0", "virtual address: db-01"), (0, 11.3))
    assert near(picture.shapes("host1", "virtual address: db-02"), (11.3, 65))
    assert len(picture.shapes("host2", "etcd's leader: witness")) == 1
    assert near(Picture(wrong()).shapes("nobody", "etcd's leader: nobody"), (12, 31))


def test_names_are_shortened_to_what_tells_them_apart() -> None:
    only_databases = power_off(
        before=dataclasses.replace(power_off().before, etcd_leader=None),
        after=dataclasses.replace(power_off().after, etcd_leader=None),
    )
    assert "db-01" in Picture(only_databases).words()
    assert {"db-01", "db-02", "witness"} <= set(Picture(power_off()).words())


def test_a_wrong_run_says_so_and_why_and_what_was_noted() -> None:
    words = Picture(wrong()).words()
    assert "wrong" in words
    assert "2 ids lost: 17, 18" in words
    assert 'never whole again: "replica" <missing>' in words
    assert "db-02: promoted" in words
    assert any(word.startswith("<script>alert('1')</script> & more") for word in words)
    assert "<script" not in Picture(wrong()).source, "as text only"


def test_it_is_one_file_without_script_and_the_same_bytes_each_time() -> None:
    for record in campaign():
        source = drill_picture.timeline(record)
        assert source == drill_picture.timeline(record)
        assert not re.search(r"href|url\(|<script|<image|@import|on\w+=", source)
        assert re.findall(r"https?://[^\"]+", source) == ["http://www.w3.org/2000/svg"]
        assert "prefers-color-scheme:dark" in source
        assert "prefers-color-scheme" not in drill_picture.timeline(record, styled=False)


def test_every_colour_has_a_dark_one() -> None:
    for name, (light, dark) in drill_svg.COLOURS.items():
        assert f".f-{name}{{fill:{dark}}}" in drill_svg.STYLE
        assert re.fullmatch(r"#[0-9a-f]{6}", light)
        assert re.fullmatch(r"#[0-9a-f]{6}", dark)


@pytest.mark.parametrize("dark", [False, True])
def test_words_can_be_read_on_what_they_stand_on(dark: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """The contrast that WCAG asks for: 4.5 to 1."""
    on = {kind: drill_svg.INSIDE[kind] for kind in drill_svg.INSIDE if kind != "gap"}
    on_paper = ("ink", "muted", "right", "above", "wrong", "fault", "heal", "whole", "gap")
    for ground, words in [*on.items(), *(("paper", words) for words in on_paper)]:
        one, other = (_luminance(drill_svg.COLOURS[name][dark]) for name in (ground, words))
        contrast = (max(one, other) + 0.05) / (min(one, other) + 0.05)
        assert contrast >= 4.5, f"{words} on {ground}: {contrast:.1f}"


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def anything(seed: int) -> Record:
    """Return a run of anything: many gaps and events, close together, of long names."""
    chance = random.Random(seed)  # noqa: S311 -- the same runs each time
    end = chance.choice([4.0, 30.0, 65.0, 300.0, 4000.0])

    def moments(count: int) -> list[float]:
        return sorted(round(chance.uniform(0, end), 3) for _ in range(count))

    def gaps() -> tuple[tuple[float, float], ...]:
        edges = moments(2 * chance.randrange(12))
        return tuple(zip(edges[::2], edges[1::2], strict=True))

    fault, heal, whole = moments(3)
    longer = chance.choice(["", "-of-a-very-long-name-indeed"])
    hosts = [f"{name}{longer}" for name in (DB1, DB2, WITNESS)]
    events = tuple(
        Event(
            at=at,
            host=chance.choice([None, *hosts]),
            what=chance.choice(list(What)),
            value=chance.choice(["leader", "replica", "gone", None, "something else", "w" * chance.randrange(200)]),
        )
        for at in moments(chance.randrange(40))
    )
    return power_off(
        fault="f" * chance.choice([5, 120]),
        phases=Phases(fault=fault, heal=chance.choice([heal, None]), whole=chance.choice([whole, None]), end=end),
        events=events,
        write=served(*gaps(), end=end),
        read=served(*gaps(), end=end),
        verdict=chance.choice(list(Verdict)),
        reasons=tuple("r" * chance.randrange(300) for _ in range(chance.randrange(7))),
    )


@pytest.mark.parametrize("record", [*campaign(), *map(anything, range(60))], ids=lambda r: f"{r.fault[:16]}-{r.run}")
def test_words_do_not_touch_and_stay_on_the_paper(record: Record) -> None:
    picture = Picture(record)
    height = float(picture.root.get("height", ""))
    boxes = list(picture.boxes())
    for word, left, right, top, bottom in boxes:
        assert left >= 0, word
        assert right <= drill_svg.WIDTH, word
        assert top >= 0, word
        assert bottom <= height, word
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[1] or other[2] <= one[1] or one[4] <= other[3] or other[4] <= one[3]
        assert apart, f"{one} touches {other}"
    for rect in picture.root.iter(f"{SVG}rect"):
        right = float(rect.get("x", "0")) + float(rect.get("width", ""))
        assert right <= drill_svg.WIDTH


def test_the_numbers_of_an_axis_are_round_and_few() -> None:
    for end, first in ((0.4, 0.1), (4.0, 0.5), (65.0, 5.0), (3000.0, 300.0), (100_000.0, 10_800.0)):
        found = drill_svg.ticks(end)
        assert found[0] == 0
        assert found[1] == pytest.approx(first)
        assert len(found) <= 14
        assert found[-1] <= end


def test_what_was_so_is_whole_and_without_holes() -> None:
    found = drill_picture.spans("a", [(5, "b"), (5, "c"), (7, "c"), (20, "d"), (2, None)], 10)
    assert [(span.start, span.end, span.value) for span in found] == [(0, 2, "a"), (2, 5, None), (5, 10, "c")]
    assert drill_picture.spans(None, [(0, "b")], 3) == [drill_picture.Span(0, 3, "b")]
