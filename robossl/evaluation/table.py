"""Tables of an evaluation: on a terminal, or as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robossl.common.display import html_table
from robossl.evaluation.result import Result, ScoreRow, Scores
from robossl.evaluation.task import ClassCount
from robossl.measure.bootstrap import Interval
from robossl.measure.subjects.references import MAJORITY

# If a class has fewer episodes than this in the test split, intervals are rough.
FEW_EPISODES = 5
LEGEND = (
    "Balanced accuracy of episodes in % (mean score of an episode's frames), 95 % intervals over episodes; "
    "differences are paired, in points; * marks an interval that excludes zero. Random init is a mean over seeds, "
    "and its intervals include the spread between seeds."
)


def accuracy_cell(accuracy: Interval) -> str:
    """Return text such as `54.1 [43, 65]`; leave out the brackets if there is no interval."""
    if not accuracy.is_defined:
        return f"{100 * accuracy.estimate:.1f}"
    estimate, low, high = (100 * value for value in accuracy)
    return f"{estimate:.1f} [{low:.0f}, {high:.0f}]"


def difference_cell(difference: Interval | None) -> str:
    """Return text such as `+12.3 [+3.1, +21.5] *`; "" if there is no difference."""
    if difference is None:
        return ""
    if not difference.is_defined:
        return f"{100 * difference.estimate:+.1f}"
    estimate, low, high = (100 * value for value in difference)
    return f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]{' *' if difference.excludes_zero else ''}"


def compared(result: Result) -> list[str]:
    """Return the names of the baselines for which the table has a column of differences.

    The majority class has no column, because its balanced accuracy is always 1 / number of classes. A sentence below
    the table compares the encoders with it.
    """
    named = dict.fromkeys(name for row in result.rows for name in row.minus)
    return [name for name in named if name != MAJORITY]


def heading(result: Result) -> str:
    """Return the title of one table."""
    return (
        f"{result.label} on {result.test_split}: {len(result.classes)} classes, "
        f"{result.num_test_episodes} episodes ({result.num_train_episodes} to train on)"
    )


def classes_line(result: Result) -> str:
    """List the classes that are kept and those that are dropped, with their numbers of episodes (train / test)."""
    kept, dropped = _listed(result.classes), _listed(result.dropped)
    return f"{result.label} on {result.test_split}: kept {kept}; dropped {dropped or 'none'} (episodes train / test)"


def _listed(counts: tuple[ClassCount, ...]) -> str:
    return ", ".join(f"{count.name} {count.train}/{count.test}" for count in counts)


def notes(evaluation: Scores) -> Iterator[str]:
    """Yield the notes below the tables: classes, comparisons, left-out labels and warnings."""
    yield from dict.fromkeys(classes_line(result) for result in evaluation.results)
    yield from (sentence for result in evaluation.results for sentence in result.sentences())
    yield from evaluation.left_out
    yield from _cautions(evaluation)
    differences = [each for result in evaluation.results for row in result.rows for each in row.minus.values()]
    count = sum(each.is_defined for each in differences)
    if count > 1:
        yield f"{count} differences were tested: about one in twenty excludes zero by chance alone."


def _cautions(evaluation: Scores) -> Iterator[str]:
    for result in evaluation.results:
        few = [count.name for count in result.classes if count.test < FEW_EPISODES]
        if few:
            what = "no interval" if any(count.test < 2 for count in result.classes) else "a rough interval"
            yield f"{result.title}: {what}, as there are fewer than {FEW_EPISODES} episodes of {', '.join(few)}."
        for row in result.rows:
            if any(details.get("converged") is False for details in row.details):
                yield f"{result.title}: the fit of {row.name} did not converge; its figure is not final."


def print_tables(evaluation: Scores, console: Console) -> None:
    """Print one table per protocol, label and test split, then the notes."""
    for result in evaluation.results:
        names = compared(result)
        rows = [(map(escape, _cells(row, names)), "bold" if row.kind == "encoder" else "") for row in result.rows]
        print_table(console, _titles(result), rows, title=f"{result.protocol}, {heading(result)}")
    console.print(escape(LEGEND), style="dim")
    for note in notes(evaluation):
        console.print(escape(f"- {note}"))


def print_table(
    console: Console, titles: Sequence[str], rows: Iterable[tuple[Iterable[str], str]], *, title: str = ""
) -> None:
    """Print a table. Each row is given as a pair: its cells (rich markup) and its style."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(titles):
        table.add_column(escape(name), overflow="fold", justify="left" if i == 0 else "right")
    for cells, style in rows:
        table.add_row(*cells, style=style)
    console.print(table)


def _titles(result: Result) -> list[str]:
    return ["", "balanced accuracy", *(f"minus {name}" for name in compared(result))]


def _cells(row: ScoreRow, names: list[str]) -> list[str]:
    return [row.name, accuracy_cell(row.accuracy), *(difference_cell(row.minus.get(name)) for name in names)]


def to_markdown(evaluation: Scores) -> str:
    """Return one markdown table per protocol, label and test split, and the notes."""
    lines: list[str] = []
    for result in evaluation.results:
        titles = _titles(result)
        rows = [titles, ["---"] * len(titles), *(_cells(row, compared(result)) for row in result.rows)]
        lines += [f"**{result.protocol}: {_cell(heading(result))}**", "", *map(markdown_line, rows), ""]
    return "\n".join([*lines, LEGEND, "", *(f"- {note}" for note in notes(evaluation)), ""])


def html_tables(evaluation: Scores) -> str:
    """Return the tables and the notes as HTML for a notebook."""
    tables = [
        html_table(
            f"{result.protocol}, {heading(result)}",
            [_cells(row, compared(result)) for row in result.rows],
            header=_titles(result),
        )
        for result in evaluation.results
    ]
    return "\n".join([*tables, html_table("", [], notes=[LEGEND, *notes(evaluation)])])


def markdown_line(cells: list[str]) -> str:
    """Return one row of a markdown table."""
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def interval_cell(interval: Interval | None, *, sign: bool = False) -> str:
    """Return an interval as the text of a cell; with `sign`, of a difference, `*` marks one that excludes zero."""
    if interval is None:
        return ""
    form = "{:+.2f}" if sign else "{:.2f}"
    estimate, low, high = (form.format(value) for value in interval)
    return f"{estimate} [{low}, {high}]{' *' if sign and interval.excludes_zero else ''}"
