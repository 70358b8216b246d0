"""The page of a comparison: encoders side by side, and the table."""

from __future__ import annotations

from html import escape
from pathlib import Path

from robossl.durable import write_text
from robossl.probes.compare import Comparison, Difference, Row, legend, told
from robossl.probes.report.drawing import to_svg
from robossl.probes.report.lookup import Lookup
from robossl.probes.report.page import whole
from robossl.probes.report.panels import render_heads
from robossl.probes.report.sides import draw_sides
from robossl.probes.report.strip import chip
from robossl.probes.report.words import counted, title, with_interval


def write_compare_page(comparison: Comparison, path: Path) -> None:
    """Write the page aside and rename it.

    Raises:
        ResourceError: the disk is full.
    """
    looks = [Lookup(report) for report in comparison.reports]
    drawn = to_svg(draw_sides(looks, comparison.names), "Invariance of every factor, the encoders side by side")
    names = ", ".join(comparison.names)
    body = (
        f'<header><p class="kicker">RoboSSL probe comparison</p><h1>{escape(names)}</h1></header>{_words(comparison)}'
        f'<section><h2>Side by side</h2><figure class="card narrow">{drawn}</figure></section>'
        f"{render_heads(comparison.names, [report.readings for report in comparison.reports])}"
        f'<section><h2>Differences</h2><p class="lead">{escape(legend(comparison, marks="▲ or ▼"))}</p>'
        f"{_table(comparison)}</section>"
    )
    write_text(path, whole(f"{names}: RoboSSL probe comparison", body))


def _words(comparison: Comparison) -> str:
    lines = "".join(
        f"<li>{chip(report.word)} {escape(name)} for {escape(report.task.profile)}: {escape(counted(report))}</li>"
        for report, name in zip(comparison.reports, comparison.names, strict=True)
        if report.word is not None and report.task is not None
    )
    return f'<ul class="words">{lines}</ul>' if lines else ""


def _table(comparison: Comparison) -> str:
    first, *others = comparison.names
    head = ["factor", "need", *comparison.names, *(f"{name} minus {first}" for name in others)]
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    rows = "".join(map(_row, comparison.rows))
    return f'<div class="card wide-table"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(row: Row) -> str:
    figures = "".join(
        f"<td>{with_interval(figure)}{f'<br>{chip(word)}' if word else ''}</td>"
        for figure, word in zip(row.figures, row.words, strict=True)
    )
    differences = "".join(map(_difference, row.differences))
    name = f'<th scope="row">{escape(title(row.factor))}<small> strength {row.level}</small></th>'
    return f"<tr>{name}<td>{escape(row.need)}</td>{figures}{differences}</tr>"


def _difference(difference: Difference) -> str:
    words = escape(told(difference)).removesuffix(" ^").removesuffix(" v")
    if not difference.is_claim or difference.value is None:
        return f'<td class="open">{words}</td>'
    return f"<td><b>{'▲ more' if difference.value > 0 else '▼ less'}</b> {words}</td>"
