"""Write docs/worth.md: what each encoder reads on each data set, beside random weights, pixels and the public one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runs import ScoreFile

FIGURE = "figures/worth_curves.png"
MARKS = {"r": "random ", "p": "pooled pixels", "u": "pip:efficientnet_lite0"}
BY_HAND = "## What follows"  # the section of the page that people write
HEAD = """# What an encoder is worth
Encoders trained from scratch, adapted from a public network and distilled from it, on data that none of them trained
on. Written by `python studies/worth.py`; its docstring says how to make the stores.

**Read the cells:** balanced accuracy in % for labels, R2 for poses and joints; 95 % intervals over episodes, scenes or
pieces of a recording. The letters stand for references: `r` for random weights of the same backbone, `p` for pooled
pixels, `u` for the public encoder (efficientnet_lite0, supervised on ImageNet). A letter means that the row is above
this reference by a paired interval that excludes zero; with a minus sign it is below. "Changed" is the mean over
{factors} factors at level 3, with a head that was fitted on clean frames; an R2 below 0 counts as 0.
"""


def cell(entry: Mapping[str, Any]) -> str:
    """Return a score with its interval and the marks of its paired differences."""
    estimate, low, high = entry["value"]
    scale, digits = (100, 1) if entry["percent"] else (1, 2)
    text = f"{scale * estimate:.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    marks = ""
    for mark, prefix in MARKS.items():
        for name, (_, least, most) in entry["minus"].items():
            if name.startswith(prefix) and (least > 0 or most < 0):
                marks += mark if least > 0 else f"-{mark}"
    return f"{text} {marks}".rstrip()


def write_page(docs: Path, titles: Mapping[str, str], scores: ScoreFile, *, curves: set[str], factors: int) -> None:
    """Write the measured part of docs/worth.md and its figures.

    Args:
        docs: Folder of the page.
        titles: Titles of the rows, by name.
        scores: The scores of all rows.
        curves: Names of the rows that belong to the table with curves.
        factors: Number of factors of the changed views.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    for name, title in titles.items():
        lines = scores[name]["lines"]
        spent = scores[name]["minutes"]
        seeds = f"{len(spent)} seed{'s' * (len(spent) > 1)}"
        rows[f"**{title}** ({sum(spent) / len(spent):.0f} min, {seeds})"] = lines["own"]
        rows |= {line: cells for line, cells in lines.items() if line not in ("own", "majority class")}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    parts = [HEAD.format(factors=factors)]
    for title, chosen in (
        ("## Poses and joints", [c for c in columns if "R2" in c]),
        ("## Photographs", [c for c in columns if c.startswith("imagenette")]),
        ("## Labels of robot video", [c for c in columns if c.startswith("droid")]),
    ):
        parts.append(f"{title}\n{table(rows, chosen)}\n")
    if curves:
        draw_curves({titles[name]: scores[name]["curves"] for name in titles if name in curves}, docs / FIGURE)
        parts.append(f"## Learning curves\n![kNN on photographs over training steps]({FIGURE})\n")
    page = docs / "worth.md"
    _, title, section = (page.read_text() if page.exists() else "").partition(BY_HAND)
    page.write_text("\n".join(parts) + (f"\n{title}{section}" if title else ""))


def draw_curves(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], path: Path) -> None:
    """Draw kNN accuracy over the share of the run, a line for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (title, seeds) in enumerate(curves.items()):
        for first, points in enumerate(seeds):
            steps, values = zip(*points, strict=True)
            shares = [step / steps[-1] for step in steps]
            axes.plot(shares, [100 * v for v in values], color=f"C{number}", label=None if first else title)
    axes.set(xlabel="share of the run", ylabel="kNN on Imagenette val, %")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return one markdown table: a line for each row, a cell for each column."""
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(cell(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
