"""What the drill's pictures are drawn with: text that fits, labels apart, colours for light and dark. Pure.

Every shape carries its light colours itself, so any viewer shows it; `STYLE` adds the dark ones for viewers that know
what their reader prefers. No script, no font, nothing from elsewhere. The same calls give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH = 960.0
"""Of every picture, in its own units."""
FONT = 12.0
CHARACTER = 0.6
"""Width of a character in parts of the font's size: more than most have, so that what fits here fits anywhere."""

COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#11161c"),
    "ink": ("#1d2733", "#e4e9ef"),
    "muted": ("#566373", "#9aa7b5"),
    "grid": ("#e0e5ea", "#29323c"),
    "leader": ("#2662c9", "#3070d6"),
    "replica": ("#bdd4f6", "#2a4468"),
    "gone": ("#5a616b", "#626b77"),
    "unknown": ("#eef1f4", "#1e262f"),
    "served": ("#2a9163", "#2f9e6d"),
    "gap": ("#cf3030", "#e5484d"),
    "host0": ("#6d4fb8", "#7859c4"),
    "host1": ("#f0bd60", "#d9a441"),
    "host2": ("#1f7a7a", "#257d7d"),
    "nobody": ("#f6d5d5", "#5c2326"),
    "right": ("#1c7a50", "#3fbf86"),
    "above": ("#8a5a00", "#e0a94a"),
    "wrong": ("#b42323", "#ff6b6f"),
    "fault": ("#b42323", "#ff6b6f"),
    "heal": ("#1c7a50", "#3fbf86"),
    "whole": ("#566373", "#9aa7b5"),
    "light": ("#ffffff", "#ffffff"),
    "dark": ("#1d2733", "#11161c"),
}
"""Class of a shape: its colour on light and on dark paper."""
INSIDE = {
    "leader": "light",
    "replica": "ink",
    "gone": "light",
    "unknown": "ink",
    "gap": "light",
    "host0": "light",
    "host1": "dark",
    "host2": "light",
    "nobody": "ink",
}
"""Colour of the words on a shape."""


def _style() -> str:
    fills = "".join(f".drill .f-{name}{{fill:{dark}}}" for name, (_, dark) in COLOURS.items())
    lines = "".join(f".drill .s-{name}{{stroke:{dark}}}" for name, (_, dark) in COLOURS.items())
    return f"@media (prefers-color-scheme:dark){{{fills}{lines}}}"


STYLE = _style()
"""Dark colours; a page with several pictures needs it once."""


def number(value: float) -> str:
    """Return a coordinate with at most one place."""
    return f"{value + 0.0:.1f}".removesuffix(".0")


def width_of(text: str, size: float = FONT) -> float:
    """Return the room that a text needs, rather too much than too little."""
    return len(text) * size * CHARACTER


def fitted(text: str, room: float, size: float = FONT) -> str:
    """Return the text, with an ellipsis where the room ends."""
    text = " ".join(text.split())
    if width_of(text, size) <= room:
        return text
    return text[: max(int(room / (size * CHARACTER)) - 1, 0)].rstrip() + "…"


def lines_of(parts: Iterable[str], room: float, *, joint: str = " · ", size: float = FONT) -> list[str]:
    """Return the parts in as few lines as have room for them; a part alone is cut where it is too long."""
    lines: list[str] = []
    for part in parts:
        together = f"{lines[-1]}{joint}{part}" if lines else part
        if lines and width_of(together, size) <= room:
            lines[-1] = together
        else:
            lines.append(fitted(part, room, size))
    return lines


def ticks(end: float, *, most: int = 14) -> list[float]:
    """Return the seconds to be written at an axis from 0 to ``end``: round numbers, at most this many."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((step for step in steps if end / step <= most - 1), 3600.0 * (1 + end // (3600 * (most - 1))))
    return [count * step for count in range(int(end / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Label:
    """A placed text: where the room that it may need begins, its lane from 0, what it says, where it is held."""

    left: float
    lane: int
    text: str
    x: float
    anchor: str


def in_lanes(wanted: Sequence[tuple[float, str]], left: float, right: float, *, size: float = FONT) -> list[Label]:
    """Place a text beside each x, in as few lanes as keep them apart: on its right, or on its left at the edge."""
    placed: list[Label] = []
    for x, text in wanted:
        room = width_of(text, size)
        on_the_right = x + 4 + room <= right
        start = x + 4 if on_the_right else max(x - 4 - room, left)
        lane = 0
        while any(
            other.lane == lane
            and start < other.left + width_of(other.text, size) + 8
            and other.left < start + room + 8
            for other in placed
        ):
            lane += 1
        held = on_the_right or start == left
        placed.append(Label(start, lane, text, start if held else x - 4, "start" if held else "end"))
    return placed


@dataclass
class Canvas:
    """Shapes in the order in which they are drawn."""

    shapes: list[str] = field(default_factory=list)

    def rect(
        self, x: float, y: float, width: float, height: float, kind: str, *, title: str = "", radius: float = 2
    ) -> None:
        """Draw a filled rectangle of the colour ``kind``; ``title`` is what a pointer on it shows."""
        inner = f"<title>{escape(title)}</title>" if title else ""
        self.shapes.append(
            f'<rect class="f-{kind}" x="{number(x)}" y="{number(y)}" width="{number(max(width, 0.8))}" '
            f'height="{number(height)}" rx="{number(radius)}" fill="{COLOURS[kind][0]}">{inner}</rect>'
        )

    def line(
        self, x1: float, y1: float, x2: float, y2: float, kind: str, *, dashes: str = "", width: float = 1
    ) -> None:
        """Draw a line."""
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.shapes.append(
            f'<line class="s-{kind}" x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
            f'stroke="{COLOURS[kind][0]}" stroke-width="{number(width)}"{dashed}/>'
        )

    def dot(self, x: float, y: float, radius: float, kind: str, *, title: str = "", hollow: bool = False) -> None:
        """Draw a dot, or a ring."""
        inner = f"<title>{escape(title)}</title>" if title else ""
        fill = "paper" if hollow else kind
        self.shapes.append(
            f'<circle class="f-{fill} s-{kind}" cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" '
            f'fill="{COLOURS[fill][0]}" stroke="{COLOURS[kind][0]}" stroke-width="1.5">{inner}</circle>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        kind: str = "ink",
        *,
        anchor: str = "start",
        size: float = FONT,
        bold: bool = False,
    ) -> None:
        """Write a line of text; ``y`` is its base line."""
        placed = "" if anchor == "start" else f' text-anchor="{anchor}"'
        sized = "" if size == FONT else f' font-size="{number(size)}"'
        weight = ' font-weight="600"' if bold else ""
        self.shapes.append(
            f'<text class="f-{kind}" x="{number(x)}" y="{number(y)}" fill="{COLOURS[kind][0]}"'
            f"{placed}{sized}{weight}>{escape(text)}</text>"
        )

    def plate(
        self, x: float, y: float, text: str, kind: str = "ink", *, size: float = FONT, bold: bool = False
    ) -> None:
        """Write a line of text on a piece of paper, so that a line behind it does not run through it."""
        self.rect(x - 2, y - size + 1, width_of(text, size) + 2, size + 3, "paper")
        self.text(x, y, text, kind, size=size, bold=bold)

    def svg(self, height: float, *, title: str, description: str, styled: bool) -> str:
        """Return the whole picture; ``styled`` without the dark colours only where the page has them."""
        style = f"<style>{STYLE}</style>" if styled else ""
        paper = COLOURS["paper"][0]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drill" viewBox="0 0 {number(WIDTH)} {number(height)}" '
            f'width="{number(WIDTH)}" height="{number(height)}" role="img" font-family="system-ui, sans-serif" '
            f'font-size="{number(FONT)}"><title>{escape(title)}</title><desc>{escape(description)}</desc>{style}'
            f'<rect class="f-paper" width="{number(WIDTH)}" height="{number(height)}" fill="{paper}"/>\n'
            + "\n".join(self.shapes)
            + "\n</svg>\n"
        )
