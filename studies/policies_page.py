"""Write docs/transfer_results.md: the success of policies, and what the probes had said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from robossl.policies.calibration.page import draw_scatter
from robossl.policies.calibration.result import CalibrationResult
from robossl.policies.calibration.table import (
    describe_cells,
    describe_counts,
    describe_thresholds,
    format_estimate,
    overall,
)
from robossl.policies.result import ConditionScore, PairedDifference, TransferResult, TransferRow

FIGURE = "figures/transfer_calibration.png"
MARKS = {"random ": "r", "pooled pixels": "p", "small ConvNet": "c", "proprioception": "o"}
BY_HAND = "## What follows"  # the section of the page that people write
HEAD = """# Do encoders help policies, and did the probes say so?
Written by `python studies/policies.py`; its docstring says how to make the frames.

**Read the cells:** success in % with its 95 % interval (Wilson), of the last checkpoint of {seeds} policies in {scenes}
scenes each; every policy has {demos} demonstrations of its own. Factors are at strength {strength}. Letters name the
controls that the row is above by a paired interval over scenes and seeds: `r` all random networks, `p` pooled pixels,
`c` a small ConvNet trained from scratch, `o` the robot's own state alone. `state` is the true state, which no camera
gives.
"""


def write_page(
    docs: Path, titles: Mapping[str, str], results: Sequence[TransferResult], calibration: CalibrationResult
) -> None:
    """Write the measured part of docs/transfer_results.md and its figure.

    Args:
        docs: Folder of the page.
        titles: Titles of the encoders, by source.
        results: One result for each environment and way of tuning.
        calibration: Probes held against the results.
    """
    first = results[0]
    strength = max(score.strength for score in first.rows[0].scores)
    settings = first.settings
    parts = [
        HEAD.format(seeds=first.seeds, scenes=settings.rollouts, demos=settings.demos, strength=strength),
        *(f"## {_title(each)}\n{_table(each, titles)}\n" for each in results),
    ]
    best = overall(calibration)[0].predictor
    path = docs / FIGURE
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_scatter(calibration, best).savefig(path, dpi=110)
    parts.append(
        f"## Did the probes say so?\n{_correlations(calibration)}\n\n![{best} and success kept]({FIGURE})\n\n"
        f"```\n{_thresholds(calibration)}\n```\n"
    )
    page = docs / "transfer_results.md"
    _, title, section = (page.read_text() if page.exists() else "").partition(BY_HAND)
    page.write_text("\n".join(parts) + (f"\n{title}{section}" if title else ""))


def _title(result: TransferResult) -> str:
    tuned = {"frozen": "frozen features", "last": "the last stage trained too", "all": "all layers trained too"}
    return f"`{result.settings.env}`, {tuned[result.settings.tune]}"


def _table(result: TransferResult, titles: Mapping[str, str]) -> str:
    """Return a markdown table: a line for each row, a column for each condition."""
    names = [score.factor.replace("_", " ") for score in result.rows[0].scores]
    lines = [["", *names], ["---"] * (len(names) + 1)]
    for row in result.rows:
        name = f"**{titles.get(row.source, row.name)}**" if row.kind == "encoder" else row.name
        lines.append([name, *(_cell(score, row) for score in row.scores)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(score: ConditionScore, row: TransferRow) -> str:
    text = f"{100 * score.success:.0f} [{100 * score.low:.0f}, {100 * score.high:.0f}]"
    here = [each for each in row.differences if (each.factor, each.strength) == (score.factor, score.strength)]
    return f"{text} {''.join(mark for start, mark in MARKS.items() if _above(start, here))}".rstrip()


def _above(start: str, differences: Sequence[PairedDifference]) -> bool:
    """Return whether the row is above all controls whose names start so."""
    found = [each for each in differences if each.control.startswith(start)]
    return bool(found) and all(each.low > 0 for each in found)


def _correlations(calibration: CalibrationResult) -> str:
    lines = [["predictor", "Spearman", "Kendall", "MMRV", "Spearman minus the proxy's", "minus strength alone"]]
    lines.append(["---"] * len(lines[0]))
    for each in overall(calibration):
        figures = (each.spearman, each.kendall, each.mmrv, each.minus_proxy, each.minus_strength)
        lines.append([each.predictor, *map(format_estimate, figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _thresholds(calibration: CalibrationResult) -> str:
    return "\n".join([describe_cells(calibration), *describe_thresholds(calibration), *describe_counts(calibration)])
