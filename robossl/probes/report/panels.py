"""The health panel, and every figure as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from robossl.probes.report.lookup import LEVELS, Lookup
from robossl.probes.report.words import head_rows, short, title, with_interval
from robossl.probes.result import Health, Readings, Report

ROWS = (
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
# Beside those of every view; where feature maps, flips or quarter turns were looked at.
MAP_FIGURES = (
    ("PCK of the map", "pck"),
    ("drift, px", "drift_px"),
    ("linear map, R2", "eq_map"),
    ("identity, R2", "eq_identity"),
)


def render_health(report: Report, spectrum: str) -> str:
    """What the gate saw; `spectrum` is the drawn figure."""
    readings: list[tuple[str, Readings]] = [("this encoder", report.readings)]
    readings += [(each.name, each) for each in report.references.values()]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name, _ in readings)
    rows = "".join(
        f'<tr><th scope="row">{name}<small>{note}</small></th>'
        + "".join(f"<td>{_number(each.health, field, form)}</td>" for _, each in readings)
        + "</tr>"
        for name, field, form, note in ROWS
    )
    return (
        f'<section id="health"><h2>Health</h2>{flags(report.readings.health)}<div class="pair"><figure class="card">'
        f'<h3>Spectrum</h3>{spectrum}</figure><div class="card wide-table"><table class="health"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div></div></section>"
    )


def render_heads(names: Sequence[str], readings: Sequence[Readings]) -> str:
    """What the heads of encoders read before anything is changed, side by side; nothing where there are no labels."""
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{"".join(f"<td>{figure}</td>" for figure in figures)}</tr>'
        for label, *figures in head_rows(readings)
    )
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return (
        '<section id="heads"><h2>What a head reads off clean frames</h2><p class="lead">R2, or balanced accuracy above '
        "chance: 1 is perfect, 0 is guessing. What is kept under a change is a share of this: an encoder can keep all "
        f'of very little.</p><div class="card wide-table"><table class="health"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def flags(health: Health) -> str:
    """In a sentence whether the features can carry anything."""
    if "collapsed" in health.flags:
        return (
            '<div class="banner bad" role="status"><strong>✗ Collapsed</strong><p>All frames get nearly the same '
            "features, or features along one direction. Every invariance of such an encoder is an accident of its "
            "collapse, so no cell has a figure.</p></div>"
        )
    if "precision-fragile" in health.flags:
        return (
            '<div class="banner warn" role="status"><strong>⚠ Fragile in half precision</strong><p>What tells frames '
            "apart is smaller than fp16 can hold beside the mean of the features: serve this encoder in fp32.</p></div>"
        )
    return '<div class="banner good" role="status"><strong>✓ The features carry something</strong><p></p></div>'


def _number(health: Health, field: str, form: str) -> str:
    values = {
        "rankme": health.rankme,
        "rankme_centred": health.rankme_centred,
        "rel_std": health.rel_std,
        "fp16_error": health.fp16_error,
        "floor_r1": health.floor_r1,
        "floor_nis_w": health.floor_nis_w,
        "anisotropy": health.anisotropy,
        "uniformity": health.uniformity,
        "alpha": health.alpha,
    }
    value = values[field]
    return "-" if value is None else form.format(value)


def render_table(look: Lookup) -> str:
    """Every figure of the heatmaps and the plane, for who reads numbers, or cannot see the pictures."""
    columns = ["strength", "setting", "PSNR", "SSIM", "NIS_w", "R@1", "DEC_abs", "DEC_rel"]
    columns += [f"retention of {label}" for label in look.labels]
    columns += [title for title, metric in MAP_FIGURES if _has(look, metric)]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["factor", *columns])
    rows = "".join(_row(look, factor, level) for factor in look.names for level in LEVELS)
    return (
        '<section id="figures"><h2>Every figure</h2><details><summary>Open the table</summary><div class="wide-table">'
        f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details></section>'
    )


def _row(look: Lookup, factor: str, level: int) -> str:
    view = look.view(factor, level)
    if view is None:
        return ""
    decodings = [look.decoding(factor, level, protocol) for protocol in ("abs", "rel")]
    retentions = [look.kept(label, factor, level) for label in look.labels]
    figures = [look.cell(factor, level), look.cell(factor, level, "r1")]
    figures += [each.figure if each else None for each in (*decodings, *retentions)]
    figures += [look.cell(factor, level, metric) for _, metric in MAP_FIGURES if _has(look, metric)]
    cells = [
        str(level),
        ", ".join(f"{key} {_setting(value)}" for key, value in view.params.items()),
        "-" if view.psnr is None else f"{view.psnr:.1f}",
        short(view.ssim),
        *(with_interval(None if look.is_collapsed else figure) for figure in figures),
    ]
    return (
        f'<tr><th scope="row">{escape(title(factor))}</th>' + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    )


def _has(look: Lookup, metric: str) -> bool:
    """Whether any view has a figure of this kind."""
    return any(cell.metric == metric for cell in look.report.readings.cells)


def _setting(value: object) -> str:
    if isinstance(value, tuple | list):
        return " / ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
