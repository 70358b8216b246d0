"""The HTML page of a calibration: a scatter of the best predictor, a forest of correlations, and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from robossl.common.atomic_io import write_text
from robossl.policies.calibration.result import CalibrationResult
from robossl.policies.calibration.table import (
    describe_cells,
    describe_counts,
    describe_thresholds,
    format_estimate,
    overall,
)
from robossl.report.drawing import INK, LINE, SOFT, WIDTH, canvas, styled, to_svg
from robossl.report.html import Fact, render_template

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#7a4f9a", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P")
LEFT, TOP, SIDE, NAMES, ROW = 40, 12, 250, 100, 18


def write_page(result: CalibrationResult, folder: Path) -> None:
    """Write index.html into the folder of a calibration.

    Raises:
        ResourceError: the disk is full.
    """
    best = overall(result)[0].predictor
    facts = [
        Fact("Profile", result.profile),
        Fact("Encoders", str(len(result.encoders)), "controls included"),
        Fact("Cells", str(len(result.cells)), ", ".join(result.envs)),
        Fact("Best predictor", best, format_estimate(overall(result)[0].spearman)),
    ]
    text = render_template(
        "robossl.policies",
        "calibration.html",
        title=result.profile,
        summary=describe_cells(result).splitlines()[0],
        notes=describe_cells(result).splitlines()[1:],
        facts=facts,
        best=best,
        scatter=to_svg(draw_scatter(result, best), f"{best} against the share of success kept"),
        forest=to_svg(draw_correlations(result), "Spearman correlation of each predictor with its interval"),
        thresholds="\n".join([*describe_thresholds(result), "", *describe_counts(result)]),
        command=result.command,
    )
    write_text(folder / "index.html", text)


def draw_scatter(result: CalibrationResult, predictor: str) -> Figure:
    """Draw a predictor against the share of success kept; colour and marker tell the factor."""
    cells = [
        (value, cell.share_kept, cell.factor)
        for cell in result.cells
        if (value := cell.predictors[predictor]) is not None and cell.share_kept is not None
    ]
    factors = sorted({factor for _, _, factor in cells})
    low = min((value for value, _, _ in cells), default=0.0)
    span = (max((value for value, _, _ in cells), default=1.0) - low) or 1.0
    top = max([1.0, *(kept for _, kept, _ in cells)])
    bottom = TOP + SIDE
    with styled():
        figure, axes = canvas(bottom + 40 + 14 * ((len(factors) + 1) // 2))
        for mark in (0.0, 0.5, 1.0):
            y = bottom - SIDE * mark / top
            axes.plot([LEFT, WIDTH - 10], [y, y], color=LINE, lw=0.7)
            axes.text(LEFT - 4, y, f"{mark:.0%}", ha="right", va="center", fontsize=8, color=SOFT)
        axes.text(LEFT, bottom + 12, f"{low:.2f}", fontsize=8, color=SOFT, va="center")
        axes.text(WIDTH - 10, bottom + 12, f"{low + span:.2f}", fontsize=8, color=SOFT, ha="right", va="center")
        axes.text((LEFT + WIDTH) / 2, bottom + 12, predictor, fontsize=9, color=INK, ha="center", va="center")
        for at, factor in enumerate(factors):
            style: dict[str, Any] = {
                "color": COLOURS[at % len(COLOURS)],
                "marker": MARKERS[at % len(MARKERS)],
                "lw": 0,
                "ms": 4,
            }
            points = [(value, kept) for value, kept, name in cells if name == factor]
            x = [LEFT + 6 + (value - low) / span * (WIDTH - LEFT - 22) for value, _ in points]
            axes.plot(x, [bottom - SIDE * kept / top for _, kept in points], **style)
            column, row = at % 2, at // 2
            left, y = LEFT + column * 160, bottom + 32 + 14 * row
            axes.plot([left], [y], **style)
            axes.text(left + 8, y, factor.replace("_", " "), fontsize=8, va="center")
    return figure


def draw_correlations(result: CalibrationResult) -> Figure:
    """Draw Spearman's correlation of each predictor with the share kept, from -1 to 1, with its interval."""
    rows = [each for each in overall(result) if each.spearman.value is not None]
    bottom = TOP + ROW * len(rows)
    scale = (WIDTH - NAMES - 20) / 2
    with styled():
        figure, axes = canvas(bottom + 24)
        for mark in (-1, -0.5, 0, 0.5, 1):
            x = NAMES + (mark + 1) * scale
            axes.plot([x, x], [TOP, bottom], color=INK if mark == 0 else LINE, lw=0.7)
            axes.text(x, bottom + 10, f"{mark:g}", fontsize=8, color=SOFT, ha="center", va="center")
        for at, each in enumerate(rows):
            y = TOP + ROW * (at + 0.5)
            found = each.spearman
            axes.text(2, y, each.predictor, fontsize=8.5, va="center")
            if found.low is not None and found.high is not None:
                ends = [NAMES + (bound + 1) * scale for bound in (found.low, found.high)]
                axes.plot(ends, [y, y], color=COLOURS[0], lw=1.2)
            axes.plot([NAMES + ((found.value or 0) + 1) * scale], [y], color=COLOURS[0], marker="o", ms=4)
    return figure
