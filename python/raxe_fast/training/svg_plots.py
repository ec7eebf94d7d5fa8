"""Plots as inline SVG: no script, no file, colours from the page's CSS variables.

A plot is drawn on a fixed canvas and scales with the page. The page defines the classes ``axis``,
``grid``, ``label``, and ``line``, ``dot``, ``bar``, ``band`` with a series class (``s1``, ``s2``).
Everything that is not a number is escaped. ``standalone`` makes a file of a plot, which then brings
these classes itself.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "Bars", "Line", "Whisker", "interval_plot", "standalone", "xy_plot"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 10, 40
_WIDTH, _HEIGHT = 380, 270
_ROW = 20
_NAMES, _HALF_TICK = 130, 22
_LEGEND, _LEGEND_ROW = 230, 18


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic axis from ``low`` to ``high`` with (value, text) ticks.

    Values out of range are drawn at the edge. Raises ValueError for an empty range and for a
    logarithmic one that begins at or below 0.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"no such axis: {self.low!r} to {self.high!r}, log={self.log}")

    def share(self, value: float) -> float:
        """Where a value lies, 0 at ``low`` and 1 at ``high``."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined by straight lines, or by steps (horizontal, then vertical)."""

    points: Sequence[tuple[float, float]]
    style: str = "s1"
    steps: bool = False
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """(left, right, height) rectangles that stand on the lower edge."""

    bars: Sequence[tuple[float, float, float]]
    style: str = "s1"


@dataclass(frozen=True, slots=True)
class Whisker:
    """Vertical intervals: (x, low, high)."""

    spans: Sequence[tuple[float, float, float]]
    style: str = "s1"


def _open(width: int, height: int, title: str) -> str:
    name = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{name}"><title>{name}</title>'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    return (
        f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>'
        f"{html.escape(text)}</text>"
    )


def standalone(svg: str, style: str) -> str:
    """The text of an SVG file: a plot of this module with the CSS ``style`` in it.

    Raises ValueError for a style that would end its element."""
    if "<" in style:
        raise ValueError("a style holds no markup")
    head, end, rest = svg.partition("</title>")
    return f"{head}{end}<style>{style}</style>{rest}\n"


def xy_plot(
    title: str,
    x: Axis,
    y: Axis,
    items: Sequence[Line | Bars | Whisker],
    legend: Sequence[tuple[str, str]] = (),
) -> str:
    """An SVG element with the items in order, the last one on top.

    ``legend``: (series class, text) from top to bottom, to the right of the plot."""
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def px(value: float) -> float:
        return _LEFT + width * x.share(value)

    def py(value: float) -> float:
        return _TOP + height * (1 - y.share(value))

    floor = _TOP + height
    out = [_open(_WIDTH + (_LEGEND if legend else 0), _HEIGHT, title)]
    for i, (style, text) in enumerate(legend):
        at = _TOP + _LEGEND_ROW * (i + 0.5)
        out.append(f'<path class="line {html.escape(style)}" d="M{_WIDTH} {at:.1f}h18"/>')
        out.append(_text(_WIDTH + 24, at + 4, text, "start"))
    for value, text in x.ticks:
        at = px(value)
        out.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{floor}"/>')
        out.append(_text(at, floor + 14, text))
    for value, text in y.ticks:
        at = py(value)
        out.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_LEFT + width}"/>')
        out.append(_text(_LEFT - 5, at + 4, text, "end"))
    out.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{_LEFT + width}"/>')
    out.append(_text(_LEFT + width / 2, _HEIGHT - 6, x.title))
    middle = _TOP + height / 2
    out.append(_text(11, middle, y.title, extra=f' transform="rotate(-90 11 {middle:.1f})"'))
    for item in items:
        style = html.escape(item.style)
        if isinstance(item, Bars):
            for left, right, top in item.bars:
                at = py(top)
                if at < floor:
                    out.append(
                        f'<rect class="bar {style}" x="{px(left):.2f}" y="{at:.2f}" '
                        f'width="{px(right) - px(left):.2f}" height="{floor - at:.2f}"/>'
                    )
        elif isinstance(item, Whisker):
            for where, low, high in item.spans:
                path = f"M{px(where):.2f} {py(low):.2f}V{py(high):.2f}"
                out.append(f'<path class="line {style}" d="{path}"/>')
        else:
            out.append(_line(item, style, [(px(a), py(b)) for a, b in item.points]))
    return "".join([*out, "</svg>"])


def _line(item: Line, style: str, points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    path = f"M{points[0][0]:.2f} {points[0][1]:.2f}" + "".join(
        f"H{a:.2f}V{b:.2f}" if item.steps else f"L{a:.2f} {b:.2f}" for a, b in points[1:]
    )
    dots = "".join(
        f'<circle class="dot {style}" cx="{a:.2f}" cy="{b:.2f}" r="3"/>'
        for a, b in (points if item.dots else ())
    )
    return f'<path class="line {style}" d="{path}"/>{dots}'


def interval_plot(
    title: str, rows: Sequence[tuple[str, Sequence[tuple[float, float, float, str]]]]
) -> str:
    """Names beside points with intervals on an axis from 0 to 100 %.

    ``rows``: (name, [(value, low, high, series class), ...]), shares in [0, 1]. Several points of
    one row are drawn under one another.
    """
    left = _NAMES
    width, height = _WIDTH - left - _HALF_TICK, _ROW * len(rows)
    out = [_open(_WIDTH, height + _TOP + 24, title)]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        at = left + width * tick
        out.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{_TOP + height}"/>')
        out.append(_text(at, _TOP + height + 15, f"{100 * tick:.0f} %"))
    for i, (name, points) in enumerate(rows):
        middle = _TOP + _ROW * (i + 0.5)
        out.append(_text(left - 8, middle + 4, name, "end"))
        for j, (value, low, high, style) in enumerate(points):
            y = middle + 7 * (j - (len(points) - 1) / 2)
            a, b, c = (left + width * min(max(v, 0.0), 1.0) for v in (low, value, high))
            out.append(f'<path class="line {html.escape(style)}" d="M{a:.2f} {y:.2f}H{c:.2f}"/>')
            out.append(
                f'<circle class="dot {html.escape(style)}" cx="{b:.2f}" cy="{y:.2f}" r="3"/>'
            )
    return "".join([*out, "</svg>"])
