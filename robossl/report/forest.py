"""Forest plot: in every row, each encoder is a dot with its interval, and each reference (baseline) is a grey tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robossl.report.drawing import INK, LINE, SOFT, WIDTH, canvas, shorten_name, styled

NAMES, TOP, BOTTOM = 100, 26, 34
LOW = -0.2  # value at which the axis starts; below it, the tick of a baseline becomes an arrow (of the 2nd: hollow)
MARKERS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#7a4f9a", "D"))  # colour and marker of each encoder
DASHES: tuple[Any, ...] = ("-", (0, (1, 1)))  # line style of each reference (baseline)


class ForestDot(NamedTuple):
    """A value with its confidence interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One row: a dot for each encoder and a tick for each reference (baseline). A value of None is not drawn."""

    title: str
    dots: Sequence[ForestDot | None]
    ticks: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Forest:
    """The contents of a forest plot: values of up to four encoders and two references (baselines), in rows."""

    heading: str
    axis: str
    encoders: Sequence[str]
    references: Sequence[str]
    rows: Sequence[ForestRow]


def draw_forest(forest: Forest) -> Figure:
    """Draw a forest plot with its legend."""
    count = len(forest.encoders)
    height = 16 + 6 * (count - 1)
    top = TOP + 13 * ((count + 1) // 2 + 1)
    bottom = top + height * len(forest.rows)
    with styled():
        figure, axes = canvas(bottom + BOTTOM)
        axes.text(2, 11, forest.heading, fontsize=11, weight="bold", va="center")
        _draw_legend(axes, forest)
        for value in (0.0, 0.25, 0.5, 0.75, 1.0):
            axes.plot([_x(value)] * 2, [top, bottom], color=INK if value == 0 else LINE, linewidth=0.7, zorder=0)
            axes.text(_x(value), bottom + 9, f"{value:g}", fontsize=8, color=SOFT, ha="center", va="center")
        axes.text(_x(0.5), bottom + 23, forest.axis, fontsize=8.4, ha="center", va="center")
        for i, row in enumerate(forest.rows):
            y = top + height * i
            if i % 2:
                axes.axhspan(y, y + height, color="#f3f5f7", zorder=-1, linewidth=0)
            axes.text(2, y + height / 2, row.title, fontsize=8.8, va="center")
            _draw_ticks(axes, row, y, height)
            for j, dot in enumerate(row.dots):
                _draw_dot(axes, dot, y + height * (j + 1) / (count + 1), *MARKERS[j])
    return figure


def _x(value: float) -> float:
    share = (min(1.0, max(LOW, value)) - LOW) / (1 - LOW)
    return NAMES + 4 + share * (WIDTH - NAMES - 14)


def _draw_ticks(axes: Axes, row: ForestRow, y: float, height: float) -> None:
    for i, (value, dash) in enumerate(zip(row.ticks, DASHES, strict=True)):
        if value is not None and value < LOW:
            fill = "none" if i else "full"
            axes.plot(_x(LOW) - 2 - 7 * i, y + height / 2, "<", color="#6d7780", markersize=4, fillstyle=fill)
        elif value is not None:
            axes.plot(
                [_x(value)] * 2, [y + 2, y + height - 2], color="#6d7780", linewidth=2.2, linestyle=dash, zorder=1
            )


def _draw_dot(axes: Axes, dot: ForestDot | None, y: float, colour: str, form: str) -> None:
    if dot is None:
        return
    if dot.low is not None and dot.high is not None:
        axes.plot([_x(dot.low), _x(dot.high)], [y, y], color=colour, linewidth=1.6, zorder=2)
    axes.plot(_x(dot.value), y, form, color=colour, markersize=5.2, zorder=3)


def _draw_legend(axes: Axes, forest: Forest) -> None:
    for i, name in enumerate(forest.encoders):
        colour, form = MARKERS[i]
        x, y = 8 + (i % 2) * WIDTH / 2, TOP + 13 * (i // 2)
        axes.plot(x, y, form, color=colour, markersize=5.2)
        axes.text(x + 8, y, shorten_name(name, 34), fontsize=8, va="center")
    y = TOP + 13 * ((len(forest.encoders) + 1) // 2)
    for i, (name, dash) in enumerate(zip(forest.references, DASHES, strict=True)):
        x = 8 + i * WIDTH / 4
        axes.plot([x, x], [y - 5, y + 5], color="#6d7780", linewidth=2.2, linestyle=dash)
        axes.text(x + 6, y, name, fontsize=8, va="center")
