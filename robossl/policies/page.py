"""The HTML page of a result: bars of success, a table of differences, and films of rollouts beside the page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from robossl.common.atomic_io import write_text
from robossl.policies.films import OUTCOMES
from robossl.policies.kept import place_of
from robossl.policies.result import ConditionScore, PairedDifference, TransferResult, TransferRow
from robossl.policies.table import describe_settings, format_title
from robossl.report.drawing import INK, LINE, SOFT, WIDTH, canvas, shorten_name, to_svg
from robossl.report.html import Fact, render_template

LEFT, BAR, GAP, ENCODER, CONTROL = 150, 11, 24, "#2a6f97", "#9aa3ad"


def write_page(result: TransferResult, folder: Path) -> None:
    """Write index.html into the folder of a measurement, beside its films.

    Raises:
        ResourceError: the disk is full.
    """
    settings = result.settings
    facts = [
        Fact("Environment", settings.env),
        Fact("Demonstrations", str(settings.demos), f"for each of {result.seeds} seeds"),
        Fact("Policy", settings.head, "frozen encoder" if settings.tune == "frozen" else f"trained: {settings.tune}"),
        Fact("Rollouts", str(settings.rollouts), "scenes, the same for all"),
    ]
    text = render_template(
        "robossl.policies",
        "transfer.html",
        title=settings.env,
        summary=describe_settings(result),
        facts=facts,
        bars=to_svg(draw_bars(result), "Success of every policy under every condition, with 95 % intervals"),
        conditions=[format_title(score) for score in result.rows[0].scores],
        encoders=[(row.name, _differences(row)) for row in result.rows if row.kind == "encoder"],
        films=[(row.name, _films(result, row, folder)) for row in result.rows],
        command=result.command,
    )
    write_text(folder / "index.html", text)


def draw_bars(result: TransferResult) -> Figure:
    """Draw a group of bars for each condition; the controls are grey."""
    conditions = len(result.rows[0].scores)
    figure, axes = canvas(conditions * (len(result.rows) * BAR + GAP) + 8)
    scale = (WIDTH - LEFT - 40) / 100
    y = 4.0
    for at in range(conditions):
        axes.text(0, y + 8, format_title(result.rows[0].scores[at]), color=INK, weight="bold", fontsize=9)
        y += GAP - 8
        for row in result.rows:
            score, middle = row.scores[at], y + BAR / 2
            axes.text(LEFT - 6, middle, shorten_name(row.name), ha="right", va="center", fontsize=7, color=SOFT)
            axes.barh(middle, 100 * score.success * scale, BAR - 3, left=LEFT, color=_colour(row))
            axes.plot(
                [LEFT + 100 * bound * scale for bound in (score.low, score.high)], [middle] * 2, color=INK, lw=0.8
            )
            axes.text(WIDTH, middle, f"{100 * score.success:.0f} %", ha="right", va="center", fontsize=7, color=INK)
            y += BAR
        axes.plot([LEFT, LEFT], [y - BAR * len(result.rows), y], color=LINE, lw=0.8)
        y += 8
    return figure


def _colour(row: TransferRow) -> str:
    return ENCODER if row.kind == "encoder" else CONTROL


def _differences(row: TransferRow) -> list[tuple[str, list[PairedDifference]]]:
    """Return the differences of an encoder to each control, in the order of the conditions."""
    controls = dict.fromkeys(each.control for each in row.differences)
    return [(name, [each for each in row.differences if each.control == name]) for name in controls]


def _films(result: TransferResult, row: TransferRow, folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the films of the first seed's policy under each condition, each with its outcome."""
    place = place_of(folder, row.name, row.digest, result.settings.seed)
    return [(format_title(score), _films_of(score, place, folder)) for score in row.scores]


def _films_of(score: ConditionScore, place: Path, folder: Path) -> list[tuple[str, str]]:
    paths = [(outcome, place / f"{score.factor}{score.strength}_{outcome}.mp4") for outcome in OUTCOMES]
    return [(outcome, path.relative_to(folder).as_posix()) for outcome, path in paths if path.is_file()]
