"""A plot of invariance against information: which factors move the features, and which can be decoded from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robossl.probes.report.lookup import ReportIndex
from robossl.probes.report.words import format_name
from robossl.probes.result import Family
from robossl.report.drawing import INK, LINE, SOFT, WIDTH, styled

MARKS: dict[Family, tuple[str, str]] = {  # colour (palette of Okabe and Ito) and marker of each family of factors
    "photometric": ("#0072B2", "o"),
    "geometric": ("#D55E00", "s"),
    "scene": ("#009E73", "^"),
    "temporal": ("#7a4f9a", "D"),
}
HEIGHT = 372
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 30, 62  # margins around the plot, in points
LETTER = 4.4  # approximate width of a letter, in points
CORNERS = (
    (0.0, 1.0, "equivariant", "moves, and can be read"),
    (1.0, 1.0, "invariant, still decodable", "stays, and can be read"),
    (0.0, 0.0, "destroyed", "moves, and cannot be read"),
    (1.0, 0.0, "invariant, forgotten", "stays, and cannot be read"),
)


@dataclass(frozen=True, slots=True)
class Dot:
    """One factor in the plot, at the severest strength that is judged."""

    factor: str
    family: Family
    level: int
    invariance: float
    information: float


class Plane(NamedTuple):
    """The contents of the plot: the dots, and the factors that have no dot, each with the reason."""

    dots: tuple[Dot, ...]
    missing: tuple[tuple[str, str], ...]


def make_plane(index: ReportIndex) -> Plane:
    """Make a dot for each factor with an invariance and a decoding score; note why each other factor has no dot."""
    dots, missing = [], []
    for family, factors in index.factors.items():
        for factor in factors:
            level = index.shown_level(factor)
            cell, decoding = index.cell(factor, level), index.decoding(factor, level)
            x = None if cell is None or index.is_collapsed else cell.value
            y = None if decoding is None else decoding.figure.value
            if x is not None and y is not None:
                dots.append(Dot(factor, family, level, x, y))
                continue
            why = "the encoder has collapsed" if index.is_collapsed else "was not decoded"
            if decoding is not None and y is None:
                why = decoding.figure.reason or why
            missing.append((factor, (cell.reason if cell and cell.reason else why)))
    return Plane(tuple(dots), tuple(missing))


def draw_plane(plane: Plane) -> Figure:
    """Draw the plot: its dots with the names of their factors, the corners' meanings and the legend."""
    with styled():
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        width, height = (WIDTH - LEFT - RIGHT) / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, width, height))
        figure.text(2 / WIDTH, 1 - 11 / HEIGHT, "Invariance and information", fontsize=11, weight="bold", va="center")
        low_x = min([-0.05, *(dot.invariance - 0.08 for dot in plane.dots)])
        low_y = min([-0.12, *(dot.information - 0.08 for dot in plane.dots)])
        axes.set(xlim=(max(-1.0, low_x), 1.05), ylim=(max(-1.0, low_y), 1.25))
        axes.set_yticks([tick for tick in axes.get_yticks() if low_y <= tick < 1.05])
        axes.set_xlabel("NIS_w: 1 = the features stay where they are")
        axes.set_ylabel("DEC_abs: 1 = the change can be read off them", labelpad=2)
        axes.axhline(0.5, color=LINE, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.axvline(0.5, color=LINE, linewidth=0.8, linestyle=(0, (3, 3)))
        boxes = [*_write_corners(axes), *(_box(axes, dot.invariance, dot.information, 4) for dot in plane.dots)]
        for dot in plane.dots:
            colour, form = MARKS[dot.family]
            axes.scatter(dot.invariance, dot.information, s=30, color=colour, marker=form, zorder=3, linewidth=0)
        for dot in sorted(plane.dots, key=lambda dot: dot.information):
            _write_name(axes, dot, boxes)
        _draw_legend(figure, [family for family in MARKS if any(dot.family == family for dot in plane.dots)])
    return figure


def _write_corners(axes: Axes) -> list[_Box]:
    """Write the meaning of each corner into the plot; return the rectangles that the texts cover."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    boxes = []
    low_x, high_x = axes.get_xlim()
    low_y, high_y = axes.get_ylim()
    for right, up, name, meaning in CORNERS:
        x, y = (high_x - 0.012 if right else low_x + 0.012), (high_y - 0.02 if up else low_y + 0.02)
        side = "right" if right else "left"
        words = f"{name}\n{meaning}" if up else f"{meaning}\n{name}"
        axes.text(x, y, words, fontsize=7, color=SOFT, style="italic", ha=side, va="top" if up else "bottom", zorder=1)
        wide, tall = 3.6 * max(len(name), len(meaning)), 24.0
        left, bottom = (width - wide if right else 0.0), (height - tall if up else 0.0)
        boxes.append(_Box(left, bottom, left + wide, bottom + tall))
    return boxes


def _draw_legend(figure: Figure, families: list[Family]) -> None:
    for i, family in enumerate(families):
        colour, form = MARKS[family]
        x = (LEFT + i * 78) / WIDTH
        figure.add_artist(_mark(x, 12 / HEIGHT, colour, form, figure))
        figure.text(x + 7 / WIDTH, 12 / HEIGHT, family, fontsize=8, va="center")


def _mark(x: float, y: float, colour: str, form: str, figure: Figure) -> Line2D:
    return Line2D([x], [y], color=colour, marker=form, markersize=5.5, linestyle="", transform=figure.transFigure)


class _Box(NamedTuple):
    """A rectangle in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        across = min(self.right, other.right) - max(self.left, other.left)
        along = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, across) * max(0.0, along)


def _points(axes: Axes, x: float, y: float) -> tuple[float, float]:
    (low_x, high_x), (low_y, high_y) = axes.get_xlim(), axes.get_ylim()
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return (x - low_x) / (high_x - low_x) * width, (y - low_y) / (high_y - low_y) * height


def _box(axes: Axes, x: float, y: float, half: float) -> _Box:
    at_x, at_y = _points(axes, x, y)
    return _Box(at_x - half, at_y - half, at_x + half, at_y + half)


def _write_name(axes: Axes, dot: Dot, taken: list[_Box]) -> None:
    """Write a factor's name near its dot, where the name overlaps other names and dots least.

    If the dot is not next to the name, draw a line from the name to the dot.
    """
    at_x, at_y = _points(axes, dot.invariance, dot.information)
    words = format_name(dot.factor)
    width, height = LETTER * len(words), 8.6
    best: tuple[float, float, float, _Box] | None = None
    for radius in (8, 14, 22, 32, 44):
        for step in range(16):
            dx, dy = radius * math.cos(step * math.pi / 8), radius * math.sin(step * math.pi / 8)
            left = at_x + dx - (0 if dx > 1 else width if dx < -1 else width / 2)
            box = _Box(left, at_y + dy - height / 2, left + width, at_y + dy + height / 2)
            outside = max(0.0, -box.left) + max(0.0, box.right - (WIDTH - LEFT - RIGHT))
            outside += max(0.0, -box.bottom) + max(0.0, box.top - (HEIGHT - TOP - BOTTOM))
            cost = sum(box.overlap(other) for other in taken) + 40 * outside + 0.6 * radius
            if best is None or cost < best[0]:
                best = (cost, dx, dy, box)
    assert best is not None
    _, dx, dy, box = best
    taken.append(box)
    side = "left" if dx > 1 else "right" if dx < -1 else "center"
    line: dict[str, Any] = {"arrowstyle": "-", "color": "#9aa3ad", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    axes.annotate(
        words,
        (dot.invariance, dot.information),
        (dx, dy),
        textcoords="offset points",
        fontsize=8.2,
        ha=side,
        va="center",
        color=INK,
        zorder=4,
        annotation_clip=False,
        arrowprops=line if math.hypot(dx, dy) > 12 else None,
    )
