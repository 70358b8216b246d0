"""Write the page of a report (one HTML file that needs no network), and two pictures next to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from robossl.common.atomic_io import raise_disk_full, write_text
from robossl.probes.report.drawings import (
    ReadCell,
    draw_invariance,
    draw_invariance_beside,
    draw_retention,
    draw_retention_beside,
    read_retention,
)
from robossl.probes.report.lookup import LEVELS, ReportIndex
from robossl.probes.report.panels import describe_health, make_figure_table, make_health_rows
from robossl.probes.report.pictures import PictureGroup, RetrievalErrors, make_groups, make_sheet
from robossl.probes.report.plane import Plane, draw_plane, make_plane
from robossl.probes.report.spectrum import draw_spectrum
from robossl.probes.report.strip import list_not_asked, make_strip, make_verdict_box
from robossl.probes.report.words import KNOWN_FROM, format_name, list_head_rows
from robossl.probes.result import Report
from robossl.report.drawing import to_svg, write_png
from robossl.report.html import Fact, render_template

Reasons = Mapping[str, Sequence[str]]  # maps each reason for missing numbers to the names of the factors concerned


class Drawing(NamedTuple):
    """A drawing for the page, and the factors that it does not show, with the reasons."""

    svg: Markup | str
    missing: Reasons


def write_page(
    report: Report, folder: Path, *, sheet: Path | bytes | None = None, neighbours: Sequence[RetrievalErrors] = ()
) -> tuple[Path, ...]:
    """Write `report.html`, `heatmap.png` and `plane.png` into a folder and return their paths.

    Args:
        report: The report.
        folder: Folder for the files; it is created if it does not exist.
        sheet: The contact sheet (a PNG with examples of transformed frames), as path or bytes. For None, the page has
            no sheet.
        neighbours: Frames that the encoder confuses with others.

    Raises:
        ResourceError: the disk is full.
    """
    index = ReportIndex(report)
    plane = make_plane(index)
    heatmap, drawn_plane = draw_invariance(index), draw_plane(plane)
    page, *pictures = (folder / name for name in ("report.html", "heatmap.png", "plane.png"))
    heatmaps = _list_heatmaps(index, heatmap)
    drawing = Drawing(to_svg(drawn_plane, _describe_plane(plane)) if plane.dots else "", _group_missing(plane))
    write_text(page, _render(index, heatmaps, drawing, make_sheet(sheet), make_groups(neighbours)))
    with raise_disk_full(folder):
        for figure, path in zip((heatmap, drawn_plane), pictures, strict=True):
            write_png(figure, path)
    return (page, *pictures)


def _render(
    index: ReportIndex, heatmaps: Sequence[Drawing], plane: Drawing, sheet: str, neighbours: Sequence[PictureGroup]
) -> str:
    report = index.report
    columns, rows = make_figure_table(index)
    return render_template(
        "robossl.probes.report",
        "report.html",
        report=report,
        facts=_list_facts(report),
        verdict=make_verdict_box(report),
        is_collapsed=index.is_collapsed,
        health=describe_health(report.readings.health),
        health_rows=make_health_rows(report),
        spectrum=to_svg(draw_spectrum(report), "Spectrum of the features"),
        readings_names=["this encoder", *(each.name for each in report.references.values())],
        head_rows=list_head_rows([report.readings, *report.references.values()]),
        lines=make_strip(index),
        not_asked=list_not_asked(report),
        heatmaps=heatmaps,
        reads_no_labels=report.task is not None and report.task.labels == (),
        plane=plane,
        sides=to_svg(
            draw_invariance_beside([index], [report.encoder.name]),
            "Invariance of every factor beside pooled pixels and random init",
        ),
        changed=_list_changed(index),
        sheet=sheet,
        neighbours=neighbours,
        figure_columns=columns,
        figure_rows=rows,
        command=report.settings.get("command"),
        settings=_list_settings(report),
    )


def _list_facts(report: Report) -> list[Fact]:
    encoder, data = report.encoder, report.data
    height, width = data.resolution
    facts = [
        Fact("Task", report.task.profile if report.task else "none named"),
        Fact("Frames", f"{data.n_evaluation:,}", f"in {data.num_clusters:,} clusters: {data.cluster_key}"),
        Fact("Data", data.name, f"{width}x{height} px"),
        Fact("Features", str(encoder.dim), encoder.layer),
        Fact("Made", report.created[:16].replace("T", " ")),
    ]
    if backbone := report.random_backbone:
        facts.append(Fact("Random weights", backbone.name, KNOWN_FROM[backbone.known_from]))
    return facts


def _list_heatmaps(index: ReportIndex, invariance: Figure) -> list[Drawing]:
    """Return the heatmap of invariance, then a heatmap of retention for each label."""
    description = f"Heatmap of invariance by factor and strength; {_describe_cells(index, index.cell)}"
    found = [Drawing(to_svg(invariance, description), _find_reasons(index, index.cell))]
    for label in index.labels:
        read = read_retention(index, label)
        description = f"Heatmap of retention of {label}; {_describe_cells(index, read)}"
        found.append(Drawing(to_svg(draw_retention(index, label), description), _find_reasons(index, read)))
    return found


def _list_changed(index: ReportIndex) -> list[Markup]:
    """Return a drawing for each label that can be read: what is left of it under each change, beside the references."""
    found = []
    for label in index.labels if not index.is_collapsed else ():
        left = _describe_cells(index, read_retention(index, label))
        if left:
            found.append(to_svg(draw_retention_beside(index, label), f"Share of {label} that is left: {left}"))
    return found


def _find_reasons(index: ReportIndex, read: ReadCell) -> Reasons:
    """Return why cells of a heatmap have no number: a dict from each reason to the names of the factors concerned."""
    found: dict[str, list[str]] = {}
    for factor in index.names if not index.is_collapsed else ():
        for level in LEVELS:
            figure = read(factor, level)
            if figure is not None and figure.value is None:
                found.setdefault(figure.reason or "no reason given", []).append(format_name(factor))
    return found


def _describe_cells(index: ReportIndex, read: ReadCell) -> str:
    """Return a heatmap as text, for screen readers: the value of each factor at its severest judged strength."""
    if index.is_collapsed:
        return "collapsed, no cell has a figure"
    shown = {factor: read(factor, index.shown_level(factor)) for factor in index.names}
    return ", ".join(f"{format_name(f)} {r.value:.2f}" for f, r in shown.items() if r and r.value is not None)


def _describe_plane(plane: Plane) -> str:
    return "; ".join(f"{format_name(d.factor)} at {d.invariance:.2f}, {d.information:.2f}" for d in plane.dots)


def _group_missing(plane: Plane) -> Reasons:
    found: dict[str, list[str]] = {}
    for factor, reason in plane.missing:
        found.setdefault(reason, []).append(format_name(factor))
    return found


def _list_settings(report: Report) -> list[tuple[str, str]]:
    encoder, data = report.encoder, report.data
    rows = [
        ("encoder", f"{encoder.source}, {encoder.kind}, sha256 {encoder.sha256}"),
        ("preprocessing", encoder.preprocessing),
        ("data", f"{data.name}, sha256 {data.sha256}, {data.n_reference} reference frames"),
    ]
    for key, value in report.settings.items():
        if key != "command" and value not in ({}, ()):
            rows.append((str(key).replace("_", " "), str(value)))
    if report.task:
        rows.append(("profile", f"{report.task.profile}, sha256 {report.task.sha256}"))
    return rows
