"""The tables on the page: health of the features, and all numbers of the report."""

from __future__ import annotations

from typing import NamedTuple

from robossl.probes.report.lookup import LEVELS, ReportIndex
from robossl.probes.report.words import format_figure, format_name, format_number
from robossl.probes.result import ProbeHealth, Report
from robossl.report.html import Banner

HEALTH_ROWS = (
    ("Effective rank, centred", "rankme_centred", "{:.1f}", "below 2: collapsed"),
    ("Effective rank, raw", "rankme", "{:.1f}", "a large mean hides the rest"),
    ("Spread over mean", "rel_std", "{:.3g}", "below 1e-6: collapsed"),
    ("Loss in half precision", "fp16_error", "{:.2g}", "above .05: safe in fp32 only"),
    ("R@1 of one grey level", "floor_r1", "{:.3f}", "below .9: collapsed"),
    ("NIS_w of one grey level", "floor_nis_w", "{:.3f}", "about 1"),
    ("Mean cosine of two frames", "anisotropy", "{:.2f}", "near 1: one direction in all"),
    ("Uniformity", "uniformity", "{:.2f}", "-4: as even as can be"),
    ("Slope of the spectrum", "alpha", "{:.2f}", "about 1: rich, and smooth"),
)
# Table columns as (title, metric). A column is shown if the report has the metric. The first two metrics measure how
# feature maps move with the frame. The other two say whether a linear map predicts the features of flips and turns.
MAP_FIGURES = (
    ("PCK of the map", "pck"),
    ("drift, px", "drift_px"),
    ("linear map, R2", "eq_map"),
    ("identity, R2", "eq_identity"),
)


class HealthRow(NamedTuple):
    """Table row of one measure of the features' health, with its values for the encoder and the reference encoders."""

    name: str
    hint: str
    figures: tuple[str, ...]


def describe_health(health: ProbeHealth) -> Banner:
    """Return a banner that says whether the features carry information."""
    if "collapsed" in health.flags:
        return Banner(
            "bad",
            "✗ Collapsed",
            "All frames get nearly the same features, or features along one direction. Invariance of a collapsed "
            "encoder means nothing, so no cell has a figure.",
        )
    if "precision-fragile" in health.flags:
        return Banner(
            "warn",
            "⚠ Fragile in half precision",
            "The differences between frames are too small for fp16 beside the mean of the features: serve this encoder "
            "in fp32.",
        )
    return Banner("good", "✓ The features carry information")


def make_health_rows(report: Report) -> list[HealthRow]:
    """Return a table row for each measure of the features' health."""
    found = [each.health for each in (report.readings, *report.references.values())]
    return [
        HealthRow(name, hint, tuple(_format(each, field, form) for each in found))
        for name, field, form, hint in HEALTH_ROWS
    ]


def _format(health: ProbeHealth, field: str, form: str) -> str:
    value = getattr(health, field)
    return "-" if value is None else form.format(value)


def make_figure_table(index: ReportIndex) -> tuple[list[str], list[list[str]]]:
    """Return the column names and the rows of a table with all numbers of the report.

    These are the numbers that the heatmaps and the plot of invariance against information show.
    """
    maps = [(name, metric) for name, metric in MAP_FIGURES if _has(index, metric)]
    columns = ["factor", "strength", "setting", "PSNR", "SSIM", "NIS_w", "R@1", "DEC_abs", "DEC_rel"]
    columns += [f"retention of {label}" for label in index.labels]
    columns += [name for name, _ in maps]
    rows = []
    for factor in index.names:
        for level in LEVELS:
            if index.view(factor, level) is not None:
                rows.append(_figure_row(index, factor, level, [metric for _, metric in maps]))
    return columns, rows


def _figure_row(index: ReportIndex, factor: str, level: int, map_metrics: list[str]) -> list[str]:
    view = index.view(factor, level)
    assert view is not None
    decodings = [index.decoding(factor, level, protocol) for protocol in ("abs", "rel")]
    retentions = [index.kept(label, factor, level) for label in index.labels]
    figures = [index.cell(factor, level), index.cell(factor, level, "r1")]
    figures += [each.figure if each else None for each in (*decodings, *retentions)]
    figures += [index.cell(factor, level, metric) for metric in map_metrics]
    return [
        format_name(factor),
        str(level),
        ", ".join(f"{key} {_format_setting(value)}" for key, value in view.params.items()),
        "-" if view.psnr is None else f"{view.psnr:.1f}",
        format_number(view.ssim),
        *(format_figure(None if index.is_collapsed else figure) for figure in figures),
    ]


def _has(index: ReportIndex, metric: str) -> bool:
    return any(cell.metric == metric for cell in index.report.readings.cells)


def _format_setting(value: object) -> str:
    if isinstance(value, tuple | list):
        return " / ".join(map(_format_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
