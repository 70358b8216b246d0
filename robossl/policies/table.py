"""The result as text: one line for each row, one column for each condition, and what the differences say."""

from __future__ import annotations

from robossl.policies.result import ConditionScore, PairedDifference, TransferResult, TransferRow


def to_text(result: TransferResult) -> str:
    """Return the table, and a line for each encoder and control."""
    conditions = [format_title(score) for score in result.rows[0].scores]
    header = ["success in %", *conditions]
    body = [[row.name, *map(_cell, row.scores)] for row in result.rows]
    widths = [max(len(line[at]) for line in (header, *body)) for at in range(len(header))]
    num_encoders = sum(row.kind == "encoder" for row in result.rows)
    lines = [_joined(header, widths), *(_joined(line, widths) for line in body)]
    lines.insert(1 + num_encoders, "-" * len(lines[0]))
    said = [line for row in result.rows if row.kind == "encoder" for line in _said(row)]
    return "\n".join([describe_settings(result), "", *lines, "", *said])


def describe_settings(result: TransferResult) -> str:
    """Return one line about what was measured."""
    settings = result.settings
    tuned = "frozen features" if settings.tune == "frozen" else f"trained: {settings.tune}"
    return (
        f"{settings.env}: {settings.demos} demonstrations, head {settings.head}, {tuned}, "
        f"{result.seeds} seeds x {settings.rollouts} scenes; 95 % intervals"
    )


def _said(row: TransferRow) -> list[str]:
    """Return the differences of an encoder to each control, those whose interval leaves out zero marked with *."""
    lines = [f"{row.name} minus, in points (* the interval leaves out 0):"]
    for control in dict.fromkeys(each.control for each in row.differences):
        parts = [_difference(each) for each in row.differences if each.control == control]
        lines.append(f"  {control}: {', '.join(parts)}")
    return lines


def _difference(each: PairedDifference) -> str:
    title = each.factor + (f" {each.strength}" if each.strength else "")
    mark = "*" if each.low > 0 or each.high < 0 else ""
    return f"{title} {100 * each.value:+.0f} [{100 * each.low:+.0f}, {100 * each.high:+.0f}]{mark}"


def format_title(score: ConditionScore) -> str:
    """Return the title of a condition, such as "hue 3"."""
    return f"{score.factor} {score.strength}" if score.strength else score.factor


def _cell(score: ConditionScore) -> str:
    return f"{100 * score.success:.0f} [{100 * score.low:.0f}, {100 * score.high:.0f}]"


def _joined(cells: list[str], widths: list[int]) -> str:
    first, *rest = (
        f"{cell:<{width}}" if at == 0 else f"{cell:>{width}}"
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest])
