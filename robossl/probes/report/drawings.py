"""The drawings of a report: heatmaps, and a chart of encoders side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from robossl.probes.report.lookup import HIGH, ReportIndex
from robossl.probes.report.words import format_name
from robossl.probes.result import Figure as Reading
from robossl.probes.result import Readings
from robossl.report.drawing import format_number, shorten_name
from robossl.report.forest import Forest, ForestDot, ForestRow, draw_forest
from robossl.report.heatmap import LEVELS, Heatmap, HeatmapCell, HeatmapRow, draw_heatmap

# A function that takes a factor and a level, and returns the number to show in their cell (None: no cell).
ReadCell = Callable[[str, int], Reading | None]
# A function that takes a report, a factor, a level and a reference's readings (None: of the judged encoder).
ReadSubject = Callable[[ReportIndex, str, int, Readings | None], Reading | None]
REFERENCES = {"pixels": "pixels", "random_init": "random init"}


def draw_invariance(index: ReportIndex) -> Figure:
    """Draw a heatmap of invariance for each factor and strength.

    A cell is outlined if the features do not move although the task needs them to move.
    """
    heatmap = Heatmap(
        heading=f"Invariance (NIS_w) of {shorten_name(index.report.encoder.name)}",
        lead="1: the features do not move; 0: they move as far as to another frame",
        prefix="nis_w",
        groups=_make_groups(index, index.cell, outline=True),
        outline=f"{format_number(HIGH)} or more although the task needs EQUI",
    )
    return draw_heatmap(heatmap)


def draw_retention(index: ReportIndex, label: str) -> Figure:
    """Draw a heatmap of a label's retention (the share of its score that is left) for each factor and strength."""
    heatmap = Heatmap(
        heading=f"Retention of the task: {label}",
        lead="1: as on clean frames; 0: chance. INV is tested with the old label, else the moved one",
        prefix=f"retention-{label}",
        groups=_make_groups(index, read_retention(index, label), outline=False),
    )
    return draw_heatmap(heatmap)


def read_retention(index: ReportIndex, label: str) -> ReadCell:
    """Return a function that looks up the retention of a label by factor and level."""

    def read(factor: str, level: int) -> Reading | None:
        kept = index.kept(label, factor, level)
        return kept.figure if kept else None

    return read


def _make_groups(index: ReportIndex, read: ReadCell, *, outline: bool) -> dict[str, list[HeatmapRow]]:
    return {
        family: [_make_row(index, read, factor, outline=outline) for factor in factors]
        for family, factors in index.factors.items()
    }


def _make_row(index: ReportIndex, read: ReadCell, factor: str, *, outline: bool) -> HeatmapRow:
    cells = {}
    for level in LEVELS:
        figure = read(factor, level)
        if figure is not None and index.is_collapsed:
            cells[level] = HeatmapCell(None, missing="collapsed")
        elif figure is not None:
            outlined = outline and index.is_over_invariant(factor, level)
            cells[level] = HeatmapCell(figure.value, figure.low, figure.high, is_outlined=outlined)
    last = index.last_judged(factor) if index.report.task else None
    return HeatmapRow(factor, format_name(factor), index.needs(factor), cells, last)


def draw_invariance_beside(indexes: Sequence[ReportIndex], names: Sequence[str]) -> Figure:
    """Draw the invariance of up to four encoders side by side, with their references."""

    def read(index: ReportIndex, factor: str, level: int, of: Readings | None) -> Reading | None:
        return index.cell(factor, level, of=of)

    return _draw_beside(indexes, names, "Invariance beside its references", "NIS_w, with 95 % interval", read)


def draw_retention_beside(index: ReportIndex, label: str) -> Figure:
    """Draw the retention of a label by the encoder and by its references."""

    def read(index: ReportIndex, factor: str, level: int, of: Readings | None) -> Reading | None:
        kept = index.kept(label, factor, level, of=of)
        return kept.figure if kept else None

    axis = "share of the clean score, with 95 % interval"
    return _draw_beside([index], [index.report.encoder.name], f"{label}, read from changed frames", axis, read)


def _draw_beside(
    indexes: Sequence[ReportIndex], names: Sequence[str], heading: str, axis: str, read: ReadSubject
) -> Figure:
    """Draw a dot for each encoder and a tick for each reference.

    Each factor is shown at the severest strength that the first encoder's report judges.
    """
    first = indexes[0]
    references = first.report.references
    forest = Forest(
        heading=heading,
        axis=axis,
        encoders=[f"{n} (collapsed)" if each.is_collapsed else n for n, each in zip(names, indexes, strict=True)],
        references=[references[key].name if key in references else name for key, name in REFERENCES.items()],
        rows=[
            ForestRow(
                format_name(factor),
                [_make_dot(index, read(index, factor, first.shown_level(factor), None)) for index in indexes],
                [
                    _value(read(first, factor, first.shown_level(factor), references[key]))
                    if key in references
                    else None
                    for key in REFERENCES
                ],
            )
            for factor in first.names
        ],
    )
    return draw_forest(forest)


def _make_dot(index: ReportIndex, figure: Reading | None) -> ForestDot | None:
    if index.is_collapsed or figure is None or figure.value is None:
        return None
    return ForestDot(figure.value, figure.low, figure.high)


def _value(figure: Reading | None) -> float | None:
    return figure.value if figure else None
