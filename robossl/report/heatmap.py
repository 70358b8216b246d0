"""Heatmap: a row for each factor (kind of change to frames), a column for each strength, a value in every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robossl.report.drawing import GREY, INK, LINE, SOFT, WIDTH, canvas, format_number, styled

LEVELS = (1, 2, 3, 4, 5)
COLUMNS = {1: "1 mild", 5: "5 severe"}
# Widths in points: the column of names, then the column to its right, which shows `HeatmapRow.need`.
NAMES, GUTTER = 92, 38
ROW, GROUP, TOP, BOTTOM = 25, 20, 42, 50
CELL = (WIDTH - NAMES - GUTTER - 2) / len(LEVELS)
RED = "#D55E00"


@dataclass(frozen=True, slots=True)
class HeatmapCell:
    """A cell: a value with its interval, or the text that stands in its place if there is no value."""

    value: float | None
    low: float | None = None
    high: float | None = None
    missing: str = "no figure"
    is_outlined: bool = False


@dataclass(frozen=True, slots=True)
class HeatmapRow:
    """The row of one factor.

    Args:
        key: Middle part of the id of a cell in the page: PREFIX-KEY-LEVEL.
        title: Name of the factor.
        need: What the task needs of this factor, such as "INV" (ignore it). It is shown left of the cells.
        cells: Cells by level (strength). A factor may have fewer levels than the heatmap has columns.
        last_judged: Highest level (strength) that counts for the verdict, such as SAFE. If the row has higher levels, a
            bar separates them from this level. For None, no bar is drawn.
    """

    key: str
    title: str
    need: str
    cells: Mapping[int, HeatmapCell]
    last_judged: int | None = None

    @property
    def has_bar(self) -> bool:
        """Whether a bar is drawn, because the row has levels above `last_judged`."""
        return self.last_judged is not None and self.last_judged + 1 in self.cells


@dataclass(frozen=True, slots=True)
class Heatmap:
    """The contents of a heatmap: rows for factors, in groups.

    Args:
        heading: Title, which says what is shown.
        lead: Text below the title, which says what 1 and 0 mean.
        prefix: Start of every cell's id in the page.
        groups: Rows by the name of their group.
        outline: Text in the legend, which says what an outlined cell means; "" if no cell is outlined.
    """

    heading: str
    lead: str
    prefix: str
    groups: Mapping[str, Sequence[HeatmapRow]]
    outline: str = ""


def draw_heatmap(heatmap: Heatmap) -> Figure:
    """Draw a heatmap with its legend."""
    groups = {name: rows for name, rows in heatmap.groups.items() if rows}
    height = TOP + sum(GROUP + ROW * len(rows) for rows in groups.values()) + BOTTOM - (0 if heatmap.outline else 20)
    with styled():
        figure, axes = canvas(height)
        _draw_head(axes, heatmap)
        y = float(TOP)
        for name, rows in groups.items():
            axes.text(2, y + 12, name, fontsize=8.4, weight="bold", color=SOFT, va="center")
            y += GROUP
            for row in rows:
                _draw_row(axes, row, y, heatmap.prefix)
                y += ROW
        has_bars = any(row.has_bar for rows in groups.values() for row in rows)
        _draw_legend(axes, y + 10, has_bars=has_bars, outline=heatmap.outline)
    return figure


def _draw_head(axes: Axes, heatmap: Heatmap) -> None:
    axes.text(2, 11, heatmap.heading, fontsize=11, weight="bold", va="center")
    axes.text(2, 24, heatmap.lead, fontsize=7.6, color=SOFT, va="center")
    axes.text(NAMES + GUTTER / 2, 36, "need", fontsize=7.6, color=SOFT, ha="center", va="center")
    for level in LEVELS:
        text = COLUMNS.get(level, str(level))
        axes.text(_left(level) + CELL / 2, 36, text, fontsize=7.6, color=SOFT, ha="center", va="center")


def _left(level: int) -> float:
    return NAMES + GUTTER + (level - 1) * CELL


def _draw_row(axes: Axes, row: HeatmapRow, y: float, prefix: str) -> None:
    axes.text(2, y + ROW / 2, row.title, fontsize=9, va="center")
    axes.text(
        NAMES + GUTTER / 2,
        y + ROW / 2,
        row.need,
        fontsize=8 if len(row.need) < 5 else 6.4,
        weight="bold" if row.need == "EQUI" else "normal",
        ha="center",
        va="center",
    )
    for level, cell in row.cells.items():
        _draw_cell(axes, cell, _left(level), y, gid=f"{prefix}-{row.key}-{level}")
    if row.has_bar:
        assert row.last_judged is not None
        x = _left(row.last_judged + 1)
        axes.plot([x, x], [y - 0.5, y + ROW - 0.5], color=INK, linewidth=1.6, solid_capstyle="butt", zorder=6)


def _draw_cell(axes: Axes, cell: HeatmapCell, x: float, y: float, *, gid: str) -> None:
    value = cell.value
    is_negative = value is not None and value < 0
    box = Rectangle((x + 0.8, y + 0.4), CELL - 1.6, ROW - 1.6, linewidth=0, gid=gid)
    box.set_facecolor(GREY if value is None else "white" if is_negative else choose_colour(value))
    if is_negative:
        box.set(hatch="////", edgecolor="#b9c1c8", linewidth=0.5)
    axes.add_patch(box)
    middle = x + CELL / 2
    if value is None:
        axes.text(middle, y + ROW / 2, cell.missing, fontsize=7.4, color=SOFT, ha="center", va="center")
        return
    ink = INK if is_negative else choose_ink(value)
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.6} if is_negative else None
    has_interval = cell.low is not None and cell.high is not None
    text, lift = format_number(value), 4.2 if has_interval else 0
    axes.text(middle, y + ROW / 2 - lift, text, fontsize=9, color=ink, ha="center", va="center", bbox=plate)
    if has_interval:
        text = f"{format_number(cell.low)} to {format_number(cell.high)}"
        axes.text(middle, y + ROW / 2 + 6, text, fontsize=6.6, color=ink, ha="center", va="center", bbox=plate)
    if cell.is_outlined:
        frame = Rectangle((x + 1.6, y + 1.2), CELL - 3.2, ROW - 3.2, linewidth=2.4, edgecolor=RED, facecolor="none")
        axes.add_patch(frame).set_zorder(5)


def _draw_legend(axes: Axes, y: float, *, has_bars: bool, outline: str) -> None:
    steps = 40
    for i in range(steps):
        axes.add_patch(Rectangle((22 + i * 1.6, y), 1.7, 9, color=choose_colour(i / (steps - 1)), linewidth=0))
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
        axes.text(43, y + 21.5, outline, fontsize=7.6, va="center")


def choose_colour(value: float) -> tuple[float, float, float, float]:
    """Return a colour between light yellow (0) and dark blue (1).

    The colours differ in brightness too, so they can be told apart by a colour-blind reader and in a grey print.
    """
    return mpl.colormaps["YlGnBu"](0.04 + 0.86 * min(1.0, max(0.0, value)))


def choose_ink(value: float) -> str:
    """Return the colour of the text in a cell: dark in light cells, white in dark cells."""
    red, green, blue, _ = choose_colour(value)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
