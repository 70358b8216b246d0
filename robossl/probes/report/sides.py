"""Encoders side by side: a dot with its interval for every factor, the references as grey ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robossl.probes.report.drawing import INK, LINE, SOFT, WIDTH, canvas, styled
from robossl.probes.report.lookup import Lookup
from robossl.probes.report.words import title
from robossl.probes.result import Readings

NAMES, TOP, BOTTOM = 92, 26, 34
LOW = -0.2  # where the axis starts; an arrow stands for what lies lower
ENCODERS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#7a4f9a", "D"))  # colour and form
# key, name, line as matplotlib says it
TICKS: tuple[tuple[str, str, Any], ...] = (("pixels", "pixels", "-"), ("random_init", "random init", (0, (1, 1))))


def draw_sides(looks: Sequence[Lookup], names: Sequence[str]) -> Figure:
    """One row a factor, at the severest strength that the first report judges; up to four encoders."""
    factors = looks[0].names
    row = 16 + 6 * (len(looks) - 1)
    top = TOP + 13 * ((len(looks) + 1) // 2 + 1)
    with styled():
        figure, axes = canvas(top + row * len(factors) + BOTTOM)
        axes.text(2, 11, "Invariance beside its references", fontsize=11, weight="bold", va="center")
        references = looks[0].report.references
        ticks = [(references[key].name if key in references else name, line) for key, name, line in TICKS]
        _key(
            axes, ticks, [f"{n} (collapsed)" if look.is_collapsed else n for n, look in zip(names, looks, strict=True)]
        )
        bottom = top + row * len(factors)
        for value in (0.0, 0.25, 0.5, 0.75, 1.0):
            axes.plot([_x(value)] * 2, [top, bottom], color=INK if value == 0 else LINE, linewidth=0.7, zorder=0)
            axes.text(_x(value), bottom + 9, f"{value:g}", fontsize=8, color=SOFT, ha="center", va="center")
        axes.text(_x(0.5), bottom + 23, "NIS_w, with 95 % interval", fontsize=8.4, ha="center", va="center")
        for i, factor in enumerate(factors):
            y = top + row * i
            level = looks[0].shown_level(factor)
            assert level is not None
            if i % 2:
                axes.axhspan(y, y + row, color="#f3f5f7", zorder=-1, linewidth=0)
            axes.text(2, y + row / 2, f"{title(factor)}", fontsize=8.8, va="center")
            _ticks(axes, looks[0], factor, level, y, row)
            for j, look in enumerate(looks):
                _dot(axes, look, factor, level, y + row * (j + 1) / (len(looks) + 1), *ENCODERS[j])
    return figure


def _x(value: float) -> float:
    share = (min(1.0, max(LOW, value)) - LOW) / (1 - LOW)
    return NAMES + 4 + share * (WIDTH - NAMES - 14)


def _ticks(axes: Axes, look: Lookup, factor: str, level: int, y: float, row: float) -> None:
    for key, _, line in TICKS:
        value = _value(look, look.report.references.get(key), factor, level)
        if value is not None and value < LOW:
            axes.plot(_x(LOW) - 2, y + row / 2, "<", color="#6d7780", markersize=4)
        elif value is not None:
            axes.plot([_x(value)] * 2, [y + 2, y + row - 2], color="#6d7780", linewidth=2.2, linestyle=line, zorder=1)


def _value(look: Lookup, readings: Readings | None, factor: str, level: int) -> float | None:
    figure = look.cell(factor, level, of=readings) if readings else None
    return figure.value if figure else None


def _dot(axes: Axes, look: Lookup, factor: str, level: int, y: float, colour: str, form: str) -> None:
    figure = look.cell(factor, level)
    if look.is_collapsed or figure is None or figure.value is None:
        return
    if figure.low is not None and figure.high is not None:
        axes.plot([_x(figure.low), _x(figure.high)], [y, y], color=colour, linewidth=1.6, zorder=2)
    axes.plot(_x(figure.value), y, form, color=colour, markersize=5.2, zorder=3)


def _key(axes: Axes, ticks: Sequence[tuple[str, Any]], names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        colour, form = ENCODERS[i]
        x, y = 8 + (i % 2) * WIDTH / 2, TOP + 13 * (i // 2)
        axes.plot(x, y, form, color=colour, markersize=5.2)
        shown = name if len(name) <= 34 else f"{name[:32]}..."
        axes.text(x + 8, y, shown, fontsize=8, va="center")
    y = TOP + 13 * ((len(names) + 1) // 2)
    for i, (name, line) in enumerate(ticks):
        x = 8 + i * WIDTH / 4
        axes.plot([x, x], [y - 5, y + 5], color="#6d7780", linewidth=2.2, linestyle=line)
        axes.text(x + 6, y, name, fontsize=8, va="center")
