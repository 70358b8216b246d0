"""Heatmap: factor by strength, value and interval in every cell, what the task needs in the gutter."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robossl.probes.report.drawing import GREY, INK, LINE, SOFT, WIDTH, canvas, styled
from robossl.probes.report.lookup import HIGH, LEVELS, Lookup
from robossl.probes.report.words import short, title
from robossl.probes.result import Figure as Reading

NAMES, GUTTER = 92, 38  # points from the left: where the gutter ends, and its width
ROW, GROUP, TOP, BOTTOM = 25, 20, 42, 50
CELL = (WIDTH - NAMES - GUTTER - 2) / len(LEVELS)
RED = "#D55E00"

Read = Callable[[str, int], Reading | None]  # factor, level


def draw_heatmap(look: Lookup, read: Read, *, heading: str, lead: str, name: str, outline: bool) -> Figure:
    """Draw one.

    Args:
        look: The report.
        read: The figure of a cell; None where the factor has no such strength.
        heading: What is shown.
        lead: What 1 and 0 mean.
        name: Of the cells in the page: `NAME-FACTOR-LEVEL`.
        outline: Whether high values are outlined where the task needs equivariance.
    """
    groups = [(family, factors) for family, factors in look.factors.items() if factors]
    height = TOP + sum(GROUP + ROW * len(factors) for _, factors in groups) + BOTTOM - (0 if outline else 20)
    with styled():
        figure, axes = canvas(height)
        axes.text(2, 11, heading, fontsize=11, weight="bold", va="center")
        axes.text(2, 24, lead, fontsize=7.6, color=SOFT, va="center")
        axes.text(NAMES + GUTTER / 2, 36, "need", fontsize=7.6, color=SOFT, ha="center", va="center")
        for level in LEVELS:
            words = {1: "1 mild", 5: "5 severe"}.get(level, str(level))
            axes.text(_left(level) + CELL / 2, 36, words, fontsize=7.6, color=SOFT, ha="center", va="center")
        y, has_bars = float(TOP), False
        for family, factors in groups:
            axes.text(2, y + 12, family, fontsize=8.4, weight="bold", color=SOFT, va="center")
            y += GROUP
            for factor in factors:
                has_bars |= _row(axes, look, read, factor, y, name=name, outline=outline)
                y += ROW
        _legend(axes, y + 10, has_bars=has_bars, outline=outline)
    return figure


def _left(level: int) -> float:
    return NAMES + GUTTER + (level - 1) * CELL


def _row(axes: Axes, look: Lookup, read: Read, factor: str, y: float, *, name: str, outline: bool) -> bool:
    """One factor; whether a bar says up to where it is judged."""
    axes.text(2, y + ROW / 2, title(factor), fontsize=9, va="center")
    need = look.needs(factor)
    axes.text(
        NAMES + GUTTER / 2,
        y + ROW / 2,
        need,
        fontsize=8 if len(need) < 5 else 6.4,
        weight="bold" if need == "EQUI" else "normal",
        ha="center",
        va="center",
    )
    for level in LEVELS:
        figure = read(factor, level)
        if figure is None:
            continue
        outlined = outline and look.is_over_invariant(factor, level)
        _cell(axes, figure, _left(level), y, gid=f"{name}-{factor}-{level}", collapsed=look.is_collapsed, loud=outlined)
    last = look.last_judged(factor)
    if not look.report.task or last >= len(LEVELS) or read(factor, last + 1) is None:
        return False
    x = _left(last + 1)
    axes.plot([x, x], [y - 0.5, y + ROW - 0.5], color=INK, linewidth=1.6, solid_capstyle="butt", zorder=6)
    return True


def _cell(axes: Axes, figure: Reading, x: float, y: float, *, gid: str, collapsed: bool, loud: bool) -> None:
    value = None if collapsed else figure.value
    is_negative = value is not None and value < 0
    box = Rectangle((x + 0.8, y + 0.4), CELL - 1.6, ROW - 1.6, linewidth=0, gid=gid)
    box.set_facecolor(GREY if value is None else "white" if is_negative else colour(value))
    if is_negative:
        box.set(hatch="////", edgecolor="#b9c1c8", linewidth=0.5)
    axes.add_patch(box)
    middle = x + CELL / 2
    if value is None:
        words = "collapsed" if collapsed else "no figure"
        axes.text(middle, y + ROW / 2, words, fontsize=7.4, color=SOFT, ha="center", va="center")
        return
    ink = INK if is_negative else ink_on(value)
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.6} if is_negative else None
    has_interval = figure.low is not None and figure.high is not None
    lift = 4.2 if has_interval else 0
    axes.text(middle, y + ROW / 2 - lift, short(value), fontsize=9, color=ink, ha="center", va="center", bbox=plate)
    if has_interval:
        words = f"{short(figure.low)} to {short(figure.high)}"
        axes.text(middle, y + ROW / 2 + 6, words, fontsize=6.6, color=ink, ha="center", va="center", bbox=plate)
    if loud:
        frame = Rectangle((x + 1.6, y + 1.2), CELL - 3.2, ROW - 3.2, linewidth=2.4, edgecolor=RED, facecolor="none")
        axes.add_patch(frame).set_zorder(5)


def _legend(axes: Axes, y: float, *, has_bars: bool, outline: bool) -> None:
    steps = 40
    for i in range(steps):
        axes.add_patch(Rectangle((22 + i * 1.6, y), 1.7, 9, color=colour(i / (steps - 1)), linewidth=0))
    axes.text(19, y + 4.5, "0", fontsize=7.6, ha="right", va="center")
    axes.text(89, y + 4.5, "1", fontsize=7.6, va="center")
    axes.add_patch(Rectangle((104, y), 16, 9, facecolor="white", edgecolor=LINE, hatch="////"))
    axes.text(123, y + 4.5, "below 0", fontsize=7.6, va="center")
    axes.add_patch(Rectangle((164, y), 16, 9, facecolor=GREY, linewidth=0))
    axes.text(183, y + 4.5, "no figure", fontsize=7.6, va="center")
    if has_bars:
        axes.plot([228, 228], [y, y + 9], color=INK, linewidth=1.6)
        axes.text(232, y + 4.5, "judged up to here", fontsize=7.6, va="center")
    if outline:
        axes.add_patch(Rectangle((22, y + 17), 16, 9, facecolor="none", edgecolor=RED, linewidth=2.2))
        axes.text(
            43, y + 21.5, f"{short(HIGH)} or more where the task needs to see the change", fontsize=7.6, va="center"
        )


def colour(value: float) -> tuple[float, float, float, float]:
    """Light yellow at 0 to dark blue at 1: told apart by the colour-blind and on grey paper."""
    return mpl.colormaps["YlGnBu"](0.04 + 0.86 * min(1.0, max(0.0, value)))


def ink_on(value: float) -> str:
    """Dark letters on light cells, light ones on dark cells."""
    red, green, blue, _ = colour(value)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
