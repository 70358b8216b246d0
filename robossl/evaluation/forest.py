"""Plot the table of a comparison: a panel for each column and a row for each line, with intervals and baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robossl.common.atomic_io import atomic_write, raise_disk_full
from robossl.evaluation.lines import KINDS, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {  # colour (palette of Okabe and Ito) and marker of each kind of line
    "encoder": ("#0072B2", "o"),
    "random": ("#D55E00", "s"),
    "pixels": ("#009E73", "D"),
    "majority": ("#4d565f", "|"),
}
MAX_COLUMNS = 5
DPI = 110
CAPTION = "95 % intervals; filled: differs from random weights of the same backbone; dashed: random weights and pixels"


def write_forest(lines: Sequence[Line], path: Path, *, columns: Sequence[str] = ()) -> None:
    """Draw a comparison as a PNG file: encoders, then references (baselines).

    The marker of an encoder is filled if the interval of its difference from random weights excludes zero.

    Args:
        lines: The lines of a comparison.
        path: The PNG file to write.
        columns: Columns to draw, in this order. Default: all.

    Raises:
        ResourceError: the disk is full.
    """
    from matplotlib.figure import Figure

    columns = columns or list(dict.fromkeys(column for line in lines for column in line.cells))
    ordered = sorted(lines, key=lambda line: KINDS.index(line.kind))
    across = min(MAX_COLUMNS, len(columns))
    down = math.ceil(len(columns) / across)
    names = [line.name for line in ordered]
    width = 2.2 * across + 0.075 * max(map(len, names))
    figure = Figure(figsize=(width, (0.21 * len(names) + 0.8) * down), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes in grid.flat[len(columns) :]:
        axes.set_axis_off()
    for axes, column in zip(grid.flat, columns, strict=False):
        _draw(axes, ordered, column)
    grid[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(CAPTION, fontsize=8, color="#4d565f")
    with raise_disk_full(path), atomic_write(path) as aside:
        figure.savefig(aside, dpi=DPI, format="png")


def _draw(axes: Axes, lines: Sequence[Line], column: str) -> None:
    for row, line in enumerate(lines):
        cell = line.cells.get(column)
        if cell is None:
            continue
        colour, marker = STYLES[line.kind]
        estimate, low, high = cell.value
        if cell.value.is_defined:
            axes.plot([low, high], [row, row], color=colour, linewidth=1.4)
        differs = line.kind != "encoder" or (cell.minus_random is not None and cell.minus_random.excludes_zero)
        axes.plot([estimate], [row], marker, color=colour, markersize=5, markerfacecolor=colour if differs else "white")
        if line.kind in ("random", "pixels"):
            axes.axvline(estimate, color=colour, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    axes.set_title(column.replace(", ", "\n"), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e8eaec", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
