"""The eigenspectrum of the features: how many directions they use, beside the references."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from robossl.probes.report.drawing import LINE, WIDTH, styled
from robossl.probes.report.sides import TICKS
from robossl.probes.result import Readings, Report

HEIGHT = 220
FLOOR = 1e-6  # of the largest singular value; nothing is drawn below


def draw_spectrum(report: Report) -> Figure:
    """Singular values of the centred features over their sum, largest first."""
    lines: list[tuple[str, Readings, str, Any, float]] = [
        (report.encoder.name, report.readings, "#0072B2", "-", 2.0),
        *(
            (name, report.references[key], "#6d7780", line, 1.4)
            for key, name, line in TICKS
            if key in report.references
        ),
    ]
    with styled():
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), layout="constrained")
        axes = figure.add_subplot()
        for name, readings, colour, dash, width in lines:
            values = readings.health.spectrum
            if values and max(values) > 0:
                shown = [max(value, FLOOR * max(values)) for value in values]
                short = name if len(name) <= 30 else f"{name[:28]}..."
                axes.plot(range(1, len(shown) + 1), shown, color=colour, linestyle=dash, linewidth=width, label=short)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # plain: nothing here reads math
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("direction, the largest first")
        axes.set_ylabel("share of the spread")
        axes.grid(color=LINE, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return figure
