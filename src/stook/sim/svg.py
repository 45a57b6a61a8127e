"""Curves as SVG text, so that a page can show a measurement without a plotting library. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
COLOURS = ("#1b6ca8", "#c2571a", "#2e8b57", "#7b3fa0", "#8a6d00", "#444444")


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through `points`, or with `dots` a mark at each of them. `colour` is a number; `name` "" stays unnamed."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A named axis from `low` to `high` with labelled `ticks`; `log` for powers."""

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("an axis runs upwards, a logarithmic one from above 0")

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1; beyond the ends at the ends."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (value - low) / (high - low)))


def chart(title: str, across: Axis, up: Axis, curves: Sequence[Curve]) -> str:
    """One picture. The same arguments give the same text."""

    def x(value: float) -> str:
        return f"{LEFT + across.share(value) * (WIDTH - LEFT - RIGHT):.1f}"

    def y(value: float) -> str:
        return f"{HEIGHT - BOTTOM - up.share(value) * (HEIGHT - TOP - BOTTOM):.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{_escaped(title)}</text>',
    ]
    for value, label in across.ticks:
        lines.append(f'<path d="M{x(value)} {y(up.low)}V{y(up.high)}" stroke="#e4e4e4"/>')
        lines.append(f'<text x="{x(value)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_escaped(label)}</text>')
    for value, label in up.ticks:
        lines.append(f'<path d="M{x(across.low)} {y(value)}H{x(across.high)}" stroke="#e4e4e4"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y(value)}" dy="4" text-anchor="end">{_escaped(label)}</text>')
    lines.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 12}" text-anchor="middle">'
        f"{_escaped(across.name)}</text>"
    )
    lines.append(f'<text x="8" y="{TOP - 6}">{_escaped(up.name)}</text>')
    named = 0
    for curve in curves:
        colour = COLOURS[curve.colour % len(COLOURS)]
        if curve.dots:
            lines += [f'<circle cx="{x(a)}" cy="{y(b)}" r="3" fill="{colour}"/>' for a, b in curve.points]
        else:
            path = "L".join(f"{x(a)} {y(b)}" for a, b in curve.points)
            lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if curve.name:
            at, named = HEIGHT - BOTTOM - 14 - 18 * named, named + 1
            right = WIDTH - RIGHT - 8
            lines.append(f'<text x="{right}" y="{at}" text-anchor="end" fill="{colour}">{_escaped(curve.name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
