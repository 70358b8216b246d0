"""An evaluation as tables: for a terminal by rich, for a document as markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robossl.evaluate.result import Evaluation, Result, Row
from robossl.evaluate.task import ClassCount
from robossl.statistics import Interval

LEGEND = (
    "Balanced accuracy of episodes in % (mean score of an episode's frames), 95 % intervals over episodes; "
    "differences are paired, in points; * marks an interval that excludes zero."
)


def accuracy_cell(accuracy: Interval) -> str:
    """54.1 [43.2, 64.9]."""
    estimate, low, high = (100 * value for value in accuracy)
    return f"{estimate:.1f} [{low:.1f}, {high:.1f}]"


def difference_cell(difference: Interval | None) -> str:
    """+12.3 [+3.1, +21.5] *, or nothing."""
    if difference is None:
        return ""
    estimate, low, high = (100 * value for value in difference)
    return f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]{' *' if difference.excludes_zero else ''}"


def references(result: Result) -> list[str]:
    """Names that at least one row is compared with, in order."""
    return list(dict.fromkeys(name for row in result.rows for name in row.minus))


def heading(result: Result) -> str:
    """What one block of rows is about."""
    return (
        f"{result.label} on {result.test_split}: {len(result.classes)} classes, "
        f"{result.num_test_episodes} episodes ({result.num_train_episodes} to train on)"
    )


def classes_line(result: Result) -> str:
    """Which classes count and which do not, with episodes to train on / to test."""
    kept, dropped = _listed(result.classes), _listed(result.dropped)
    return f"{result.label} on {result.test_split}: kept {kept}; dropped {dropped or 'none'} (episodes train / test)"


def _listed(counts: tuple[ClassCount, ...]) -> str:
    return ", ".join(f"{count.name} {count.train}/{count.test}" for count in counts)


def notes(evaluation: Evaluation) -> Iterator[str]:
    """Everything below the tables: classes, comparisons, what is left out, how much to believe."""
    yield from dict.fromkeys(classes_line(result) for result in evaluation.results)
    yield from (sentence for result in evaluation.results for sentence in result.sentences())
    yield from evaluation.left_out
    yield from _unconverged(evaluation)
    count = sum(len(row.minus) for result in evaluation.results for row in result.rows)
    if count > 1:
        yield f"{count} differences were looked at: about one in twenty excludes zero by chance alone."


def _unconverged(evaluation: Evaluation) -> Iterator[str]:
    for result in evaluation.results:
        for row in result.rows:
            if any(details.get("converged") is False for details in row.details):
                yield f"{result.title}: the fit of {row.name} did not converge; its figure is not final."


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """One table a protocol, a section for each label and test split, then the notes."""
    for protocol in dict.fromkeys(result.protocol for result in evaluation.results):
        results = [result for result in evaluation.results if result.protocol == protocol]
        names = list(dict.fromkeys(name for result in results for name in references(result)))
        table = Table(title=f"{protocol}", title_justify="left", title_style="bold")
        for title in ("", "balanced accuracy", *(f"minus {name}" for name in names)):
            table.add_column(escape(title))
        for result in results:
            table.add_section()
            table.add_row(f"[bold]{escape(heading(result))}[/bold]")
            for row in result.rows:
                table.add_row(*map(escape, _cells(row, names)))
        console.print(table)
    console.print(escape(LEGEND), style="dim")
    for note in notes(evaluation):
        console.print(escape(f"- {note}"))


def _cells(row: Row, names: list[str]) -> list[str]:
    return [row.name, accuracy_cell(row.accuracy), *(difference_cell(row.minus.get(name)) for name in names)]


def to_markdown(evaluation: Evaluation) -> str:
    """The same as markdown, one table for each protocol, label and test split."""
    lines: list[str] = []
    for result in evaluation.results:
        names = references(result)
        titles = ["", "balanced accuracy", *(f"minus {name}" for name in names)]
        lines += [f"**{result.protocol}: {_cell(heading(result))}**", "", _line(titles), _line(["---"] * len(titles))]
        lines += [_line(_cells(row, names)) for row in result.rows] + [""]
    return "\n".join([*lines, LEGEND, "", *(f"- {note}" for note in notes(evaluation)), ""])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
