"""docs/exploration.md from what `make explore` measured."""

from __future__ import annotations

from typing import Any

HEAD = """# Exploration: who collects, and whether the loop earns its place

Written by `make explore` from `docs/exploration.json`; what it comes to is said in [collection.md](collection.md).
Environment `robossl/Push-v0`; every encoder is trained as `{config}` says, from random weights,
with batches and steps alike. R2 is that of the block's pose (x, y, sine and cosine of its angle), read off single
frames by ridge regression on {episodes} episodes that no encoder saw (noisy expert and random, {frames} frames; no
layout is there twice): every episode is predicted by a fit on others, mean over the four, 95 % intervals over episodes
and seeds; beside it that of the place (x, y) and of the angle alone. Cells are those of a 10 x 10 grid over the table
inside the rails in which the hand (of 100), the block's centre of mass (of 100), or the pair of both (of 10,000) was in
at least one frame; mean over seeds. Agents that plan do so over cells of the true state; what differs is their bonus.
* marks a difference that excludes zero; the interval of a row with one seed is over episodes alone, and has none.

References: {references}.

## By agent, {steps} steps

"""

LOOP = """
## The loop, {steps} steps in all

`robossl explore-loop`: {rounds} rounds of about {frames} frames by `novelty` and {round_steps} steps on all frames so
far; each round goes on from the last one's encoder, with a new head, a new optimizer, the schedule of the learning
rate from its beginning, and an explorer that remembers nothing of earlier rounds. Against it: as many frames at once by
another agent, and as many steps in one schedule.

"""


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    asked = result["asked"]
    found = [(name, f"{cell(each['r2'])}, {parts(each)}") for name, each in result["references"].items()]
    head = HEAD.format(
        config=asked["config"],
        references="; ".join(f"{name} {r2}" for name, r2 in found),
        steps=asked["steps"],
        **result["evaluation"],
    )
    loop = LOOP.format(
        steps=asked["steps"] * asked["rounds"],
        rounds=asked["rounds"],
        frames=f"{asked['frames']:,}",
        round_steps=asked["steps"],
    )
    verdict = "\n".join(said(each) for each in result["loop_minus"])
    return f"{head}{table(result['agents'])}\n{loop}{table(result['loop'])}\n\n{verdict}\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Agents with their coverage and scores."""
    names = list(rows[0]["minus"])
    titles = [
        "agent",
        "frames",
        "seeds",
        "hand",
        "block",
        "both",
        "R2",
        "place / angle",
        *(f"minus {name}" for name in names),
    ]
    lines = [line(titles), line(["---"] * len(titles))]
    for row in rows:
        name = f"{row['agent']}, {row['rounds']} rounds" if row["rounds"] > 1 else row["agent"]
        counts = [f"{mean(row['cells'][part]):,.0f}" for part in ("hand", "block", "both")]
        r2 = [
            cell(row["r2"]),
            parts(row),
            *(cell(row["minus"][each], sign=True, star=len(row["seeds"]) > 1) for each in names),
        ]
        lines.append(line([name, f"{mean(row['frames']):,.0f}", str(len(row["seeds"])), *counts, *r2]))
    return "\n".join(lines)


def said(one: dict[str, Any]) -> str:
    """A difference in words."""
    estimate, low, high = one["difference"]
    seeds = ", ".join(f"{value:+.3f}" for value in one["seeds"])
    if low > 0:
        verdict = "the loop is better"
    elif high < 0:
        verdict = "the loop is worse"
    else:
        verdict = "no difference is shown"
    return f"The loop minus {one['agent']}: {estimate:+.3f} [{low:+.3f}, {high:+.3f}]; by seed {seeds}: {verdict}.\n"


def parts(row: dict[str, Any]) -> str:
    """R2 of the place alone, and of the angle."""
    return f"{row['parts']['place']:.2f} / {row['parts']['angle']:.2f}"


def mean(values: list[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def cell(interval: tuple[float, float, float], *, sign: bool = False, star: bool = False) -> str:
    """An estimate with its interval; * where a difference excludes zero, unless it is of one seed."""
    form = "{:+.2f}" if sign else "{:.2f}"
    estimate, low, high = (form.format(value) for value in interval)
    return f"{estimate} [{low}, {high}]" + (" *" if star and (interval[1] > 0 or interval[2] < 0) else "")


def line(cells: list[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"
