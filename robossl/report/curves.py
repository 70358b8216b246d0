"""Draw the curves of a run as SVG pictures (data URIs), in the colour-blind-safe palette of Okabe and Ito."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from robossl.report.html import data_uri
from robossl.report.record import Series

BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
# Colour and dash style of each line. The first four lines differ in both.
LINES = (
    (BLUE, "-"),
    (VERMILLION, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (ORANGE, "-"),
)
MAX_POINTS = 600
STYLE: dict[Any, Any] = {
    # A fixed salt gives the same ids in an SVG each time, so that equal runs give equal pages.
    "svg.hashsalt": "robossl",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": "#3b444d",
    "xtick.color": "#3b444d",
    "ytick.color": "#3b444d",
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture: named lines over steps, levels to compare with, and a caption."""

    title: str
    lines: Mapping[str, Series]
    caption: str
    levels: Mapping[str, float | Series] | None = None  # values to compare with (such as a threshold), as dashed lines
    smooth: bool = False
    percent: bool = False

    @property
    def alt(self) -> str:
        """Description of the picture in words, for screen readers."""
        ends = [f"{name} from {_short(s.values[0])} to {_short(s.values[-1])}" for name, s in self.lines.items()]
        steps = max(int(series.steps[-1]) for series in self.lines.values())
        return f"{self.title} over {steps} steps: {'; '.join(ends)}"


def draw(chart: Chart) -> str:
    """Draw a chart and return it as a data URI."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for (name, series), (colour, dash) in zip(chart.lines.items(), LINES, strict=False):
            scale = 100 if chart.percent else 1
            steps, values = _thin(series)
            marker = "o" if len(steps) < 25 else None
            if chart.smooth and len(steps) > 20:
                axes.plot(steps, scale * values, color=colour, alpha=0.25, linewidth=1)
                values, marker = _smooth(values), None
            axes.plot(steps, scale * values, dash, color=colour, marker=marker, markersize=4, linewidth=2, label=name)
        for (name, level), colour in zip((chart.levels or {}).items(), ("#4d565f", VERMILLION), strict=False):
            if isinstance(level, Series):
                axes.plot(*level, color=colour, linewidth=1.3, linestyle=(0, (4, 3)), label=name)
            else:
                axes.axhline(level, color=colour, linewidth=1.3, linestyle=(0, (1, 2)), label=name)
        if len(chart.lines) + len(chart.levels or {}) > 1 or chart.percent:
            axes.legend(loc="best", fontsize=10)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        if chart.percent:
            axes.set_ylabel("%")
        axes.margins(x=0.02)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri(buffer.getvalue(), "svg+xml")


def _thin(series: Series) -> Series:
    keep = np.unique(np.linspace(0, len(series.steps) - 1, MAX_POINTS).astype(np.int64))
    return Series(series.steps[keep], series.values[keep])


def _smooth(values: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Return the moving mean of the values. The window holds a twentieth of them, and fewer near both ends."""
    half = max(1, len(values) // 40)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _short(value: float) -> str:
    return f"{value:.3g}"


def charts(metrics: Mapping[str, Series]) -> list[Chart]:
    """Return the charts that the logged metrics allow, most important first."""
    makers = (_chart_loss, _chart_spread, _chart_rank, _chart_alignment, _chart_knn)
    return [chart for make in makers if (chart := make(metrics))]


def _chart_loss(metrics: Mapping[str, Series]) -> Chart | None:
    if "loss" not in metrics:
        return None
    return Chart(
        "Loss",
        {"loss": metrics["loss"]},
        "A low loss is not good by itself: a collapsed run has the lowest loss of all, so read it beside the spread.",
        smooth=True,
    )


def _chart_spread(metrics: Mapping[str, Series]) -> Chart | None:
    if "health/std" not in metrics:
        return None
    levels: dict[str, float | Series] = {}
    if "health/std_reference" in metrics:
        reference = metrics["health/std_reference"]
        levels = {"spread evenly: 1/√d": reference, "collapse: a tenth of it": 0.1 * float(reference.values[-1])}
    return Chart(
        "Spread of outputs",
        {"std": metrics["health/std"]},
        "Standard deviation of the l2-normalised outputs. Near the dashed line the encoder tells frames apart; near "
        "zero all frames look the same to it.",
        levels,
    )


def _chart_rank(metrics: Mapping[str, Series]) -> Chart | None:
    if "health/rank" not in metrics:
        return None
    return Chart(
        "Effective rank",
        {"rank": metrics["health/rank"]},
        "The number of directions that the outputs use. More is richer; below 2 the encoder describes a frame by a "
        "single number.",
        {"collapse: 2": 2.0},
    )


def _chart_alignment(metrics: Mapping[str, Series]) -> Chart | None:
    lines = {name: metrics[key] for name in ("alignment", "uniformity") if (key := f"health/{name}") in metrics}
    if not lines:
        return None
    return Chart(
        "Alignment and uniformity",
        lines,
        "Alignment: distance between two views of one frame; lower is more invariant. Uniformity: lower is more evenly "
        "spread over frames. A good run lowers both.",
    )


def _chart_knn(metrics: Mapping[str, Series]) -> Chart | None:
    lines = {key.removeprefix("knn/"): metrics[key] for key in metrics if key.startswith("knn/")}
    if not lines:
        return None
    return Chart(
        "Online kNN",
        lines,
        "Balanced accuracy in % of a label read from the frozen features during training. It is measured on few "
        "frames: look at the trend, not at single values.",
        percent=True,
    )


def other_charts(metrics: Mapping[str, Series]) -> list[Chart]:
    """Return a plain chart of each metric that is not named "loss...", "health/..." or "knn/..."."""
    shown = ("loss", "health/", "knn/")
    return [Chart(name, {name: series}, "") for name, series in metrics.items() if not name.startswith(shown)]
