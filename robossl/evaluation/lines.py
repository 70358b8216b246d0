"""Lines of a comparison's table: one line for each method, with a score for each task.

This module writes the lines as JSON or markdown, reads the JSON, and prints the lines on a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from robossl.common.atomic_io import write_text
from robossl.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from robossl.measure.bootstrap import Interval

SCHEMA = "robossl.comparison/1"
KINDS = ("encoder", "random", "pixels", "majority")

LEGEND = (
    "Balanced accuracy of episodes in %, mean R2 for a state; 95 % intervals over episodes and seeds; bold is the best "
    "of a column, ^ or v: above or below random weights of the same backbone by a paired interval that excludes zero."
)


class TableCell(NamedTuple):
    """A cell of the table: a score, and its paired difference from random weights (None for a baseline)."""

    value: Interval
    minus_random: Interval | None


class Line(NamedTuple):
    """One line of the table: a method with all its seeds, or a reference (baseline)."""

    name: str
    kind: str
    cells: dict[str, TableCell]  # cells by the name of their column


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Sort the lines: encoders first, then references (baselines)."""
    return sorted(lines, key=lambda line: KINDS.index(line.kind))


def write_lines(lines: list[Line], out: Path | None) -> str:
    """Return the table as markdown; if `out` is given, also write all numbers to this JSON file."""
    ordered = in_order(lines)
    if out:
        write_text(out, json.dumps({"schema": SCHEMA, "lines": [_plain(line) for line in ordered]}, indent=1) + "\n")
    return to_markdown(ordered)


def read_lines(path: Path) -> list[Line]:
    """Read the lines of a table that `compare` wrote.

    Raises:
        InputError: the file is not a table of `compare`.
    """
    from robossl.measure.bootstrap import Interval

    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path} is not a table of `robossl compare`; name the file that its --out wrote")

    def cell(figures: dict[str, Any]) -> TableCell:
        minus = figures["minus_random"]
        return TableCell(Interval(*figures["value"]), None if minus is None else Interval(*minus))

    return [
        Line(line["name"], line["kind"], {column: cell(each) for column, each in line["cells"].items()})
        for line in content["lines"]
    ]


def to_markdown(lines: list[Line]) -> str:
    """Return the table as markdown, with the best score of each column in bold."""
    from robossl.evaluation.table import markdown_line

    columns, rows = _rows(lines, bold="**{}**")
    table = "\n".join(map(markdown_line, [["", *columns], ["---"] * (len(columns) + 1), *rows]))
    return f"{table}\n\n{LEGEND}"


def print_lines(lines: list[Line], console: Console) -> None:
    """Print the table on a terminal."""
    from rich.markup import escape

    from robossl.evaluation.table import print_table

    columns, rows = _rows(lines, bold="[bold]{}[/bold]")
    print_table(console, ["", *columns], [([escape(name), *cells], "") for name, *cells in rows])
    console.print(escape(LEGEND), style="dim")


def _rows(lines: list[Line], *, bold: str) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns, then for each line its name and its cells as text.

    `bold` is the format string for the best score of a column.
    """
    columns = list(dict.fromkeys(column for line in lines for column in line.cells))
    best = {c: max(line.cells[c].value.estimate for line in lines if c in line.cells) for c in columns}
    shown = [[line.name, *(_shown(line.cells.get(c), best[c], bold) for c in columns)] for line in lines]
    return columns, shown


def _shown(cell: TableCell | None, best: float, bold: str) -> str:
    if cell is None:
        return ""
    digits = 2 if abs(best) <= 1 else 1
    estimate, low, high = cell.value
    text = f"{estimate:.{digits}f}"
    text = bold.format(text) if estimate == best else text
    text += f" [{low:.{digits}f}, {high:.{digits}f}]" if cell.value.is_defined else ""
    minus = cell.minus_random
    return text + (f" {'^' if minus.low > 0 else 'v'}" if minus is not None and minus.excludes_zero else "")


def _plain(line: Line) -> dict[str, Any]:
    cells = {
        column: {
            "value": list(cell.value),
            "minus_random": None if cell.minus_random is None else list(cell.minus_random),
        }
        for column, cell in line.cells.items()
    }
    return {"name": line.name, "kind": line.kind, "cells": cells}
