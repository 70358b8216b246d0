"""Plot frame ages over time, their distribution, and the served frames of each client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robossl_serving.bench.trace import Trace
from robossl_serving.requests import Priority

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
_COLOURS: dict[Priority, tuple[str, str]] = {"control": ("#0072B2", "-"), "batch": ("#D55E00", "--")}


def plot(path: Path, traces: Sequence[Trace], title: str) -> None:
    """Write the results of a load test as a PNG with three panels.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    over_time, distribution, shares = figure.subplots(1, 3)
    for kind, (colour, dash) in _COLOURS.items():
        mine = [trace for trace in traces if trace.kind == kind]
        replies = sorted((reply for trace in mine for reply in trace.replies), key=lambda reply: reply.at_s)
        if not replies:
            continue
        ages_ms = np.array([reply.age_s * 1e3 for reply in replies])
        over_time.plot([reply.at_s for reply in replies], ages_ms, ".", color=colour, markersize=2, label=kind)
        part = np.arange(1, len(ages_ms) + 1) / len(ages_ms)
        distribution.plot(np.sort(ages_ms), 100 * part, dash, color=colour, label=kind)
        for percent in (50, 99):
            at_ms = float(np.percentile(ages_ms, percent))
            distribution.plot([at_ms], [percent], "o", color=colour, markersize=4)
            distribution.annotate(
                f"p{percent} {at_ms:.1f}", (at_ms, percent), textcoords="offset points", xytext=(5, -11), fontsize=8
            )
    names = [trace.name for trace in traces]
    served = [trace.frames_served / (trace.until_s - trace.from_s) for trace in traces]
    shares.barh(names, served, color=[_COLOURS[trace.kind][0] for trace in traces])
    shares.invert_yaxis()
    over_time.set(xlabel="seconds", ylabel="age of served frames, ms", ylim=(0, None))
    distribution.set(xlabel="age of served frames, ms", ylabel="% of frames", xlim=(0, None))
    shares.set(xlabel="frames served per second")
    for axes in (over_time, distribution, shares):
        axes.spines[["top", "right"]].set_visible(False)
    if len({trace.kind for trace in traces}) > 1:
        distribution.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
