"""The HTML page of a comparison: several encoders side by side, and a table of their differences."""

from __future__ import annotations

from pathlib import Path

from robossl.common.atomic_io import write_text
from robossl.probes.compare import Comparison, ReportDifference, describe_comparison, format_difference
from robossl.probes.report.drawings import draw_invariance_beside
from robossl.probes.report.lookup import ReportIndex
from robossl.probes.report.words import BADGES, count_verdicts, format_figure, format_name, list_head_rows
from robossl.report.drawing import to_svg
from robossl.report.html import render_template


def write_compare_page(comparison: Comparison, path: Path) -> None:
    """Write the HTML page of a comparison to `path`; a reader never finds a half-written file.

    Raises:
        ResourceError: the disk is full.
    """
    indexes = [ReportIndex(report) for report in comparison.reports]
    first, *others = comparison.names
    text = render_template(
        "robossl.probes.report",
        "compare.html",
        title=", ".join(comparison.names),
        verdicts=_list_verdicts(comparison),
        badges=BADGES,
        sides=to_svg(
            draw_invariance_beside(indexes, comparison.names), "Invariance of every factor, the encoders side by side"
        ),
        readings_names=comparison.names,
        head_rows=list_head_rows([report.readings for report in comparison.reports]),
        legend=describe_comparison(comparison, marks="▲ or ▼"),
        columns=["factor", "need", *comparison.names, *(f"{name} minus {first}" for name in others)],
        rows=comparison.rows,
        format_name=format_name,
        format_figure=format_figure,
        format_difference=_format_difference,
    )
    write_text(path, text)


def _list_verdicts(comparison: Comparison) -> list[dict[str, str]]:
    return [
        {"word": report.word, "name": name, "profile": report.task.profile, "counts": count_verdicts(report)}
        for report, name in zip(comparison.reports, comparison.names, strict=True)
        if report.word is not None and report.task is not None
    ]


def _format_difference(difference: ReportDifference) -> str:
    return format_difference(difference).removesuffix(" ^").removesuffix(" v")
