"""Draw the spectra of the encoder's and the baselines' features; they show how many directions the features use."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from robossl.probes.report.drawings import REFERENCES
from robossl.probes.result import Readings, Report
from robossl.report.drawing import LINE, WIDTH, shorten_name, styled
from robossl.report.forest import DASHES

HEIGHT = 220
# Smallest share of the largest singular value that is drawn. Smaller values are drawn at this height, because the axis
# is logarithmic and has no place for zero.
FLOOR = 1e-6


def draw_spectrum(report: Report) -> Figure:
    """Draw the singular values of the centred features, the largest first, each divided by the sum of all."""
    lines: list[tuple[str, Readings, str, Any, float]] = [
        (report.encoder.name, report.readings, "#0072B2", "-", 2.0),
        *(
            (name, report.references[key], "#6d7780", dash, 1.4)
            for (key, name), dash in zip(REFERENCES.items(), DASHES, strict=True)
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
                at = range(1, len(shown) + 1)
                axes.plot(at, shown, color=colour, linestyle=dash, linewidth=width, label=shorten_name(name))
        axes.set_yscale("log")
        # The default formatter writes math text, which `styled` switches off, so use a formatter for plain text.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("direction, the largest first")
        axes.set_ylabel("share of the spread")
        axes.grid(color=LINE, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return figure
