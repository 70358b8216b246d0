"""Write docs/exploration.md from the scores of `make explore`."""

from __future__ import annotations

from typing import Any

HEAD = """# Exploration: agents and the loop compared

Written by `make explore`. The conclusions are in [collection.md](collection.md#does-the-loop-pay).

- **Training:** every encoder starts from random weights and follows `{config}`, with the
  same batches and steps.
- **R2:** ridge regression predicts the block's pose (x, y, sine and cosine of its angle) from single frames of
  {episodes} episodes that no encoder saw (noisy expert and random, {frames} frames, no layout twice). Each episode is
  predicted by a fit on the others. R2 is the mean over the four values, with a 95 % interval over episodes and seeds.
  The next column gives R2 of the place (x, y) and of the angle alone.
- **Coverage:** a 10 x 10 grid covers the table inside the rails. The columns count the cells that the hand (of 100),
  the block's centre of mass (of 100) or the pair of both (of 10,000) visited in at least one frame; mean over seeds.
- **Agents:** those that plan do so over cells of the true state and differ in their bonus.
- `*` marks a difference whose interval excludes zero. A row with one seed has an interval over episodes alone and gets
  no mark.

References: {references}.

## By agent, {steps} steps

"""

LOOP = """
## The loop, {steps} steps in all

`robossl explore-loop` runs {rounds} rounds. Each round collects about {frames} frames with `novelty` and trains
{round_steps} steps on all frames so far. It starts from the encoder of the round before, with a new head, a new
optimizer, a new schedule and an explorer without memory. The other rows collect as many frames at once with another
agent and train as many steps in one schedule.

"""


def page(result: dict[str, Any]) -> str:
    """Write the whole page."""
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
    verdict = "\n".join(comparison(each) for each in result["loop_minus"])
    return f"{head}{table(result['agents'])}\n{loop}{table(result['loop'])}\n\n{verdict}\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Write a table of agents with coverage and scores."""
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


def comparison(one: dict[str, Any]) -> str:
    """Say in words whether the loop differs from one agent."""
    estimate, low, high = one["difference"]
    seeds = ", ".join(f"{value:+.3f}" for value in one["seeds"])
    if low > 0:
        verdict = "the loop is better"
    elif high < 0:
        verdict = "the loop is worse"
    else:
        verdict = "no difference shown"
    return f"The loop minus {one['agent']}: {estimate:+.3f} [{low:+.3f}, {high:+.3f}]; by seed {seeds}: {verdict}.\n"


def parts(row: dict[str, Any]) -> str:
    """Write R2 of the place and of the angle."""
    return f"{row['parts']['place']:.2f} / {row['parts']['angle']:.2f}"


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def cell(interval: tuple[float, float, float], *, sign: bool = False, star: bool = False) -> str:
    """Write an estimate with its interval; `star` marks an interval that excludes zero."""
    form = "{:+.2f}" if sign else "{:.2f}"
    estimate, low, high = (form.format(value) for value in interval)
    return f"{estimate} [{low}, {high}]" + (" *" if star and (interval[1] > 0 or interval[2] < 0) else "")


def line(cells: list[str]) -> str:
    """Write one line of a table."""
    return f"| {' | '.join(cells)} |"
