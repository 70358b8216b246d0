"""The statistics of a store as a table on the terminal, and as a page with plots and a contact sheet."""

from __future__ import annotations

import io
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from robossl.data.statistics import Measured, Spread, StoreStatistics
from robossl.data.store import Store
from robossl.report.curves import BLUE, STYLE
from robossl.report.html import Fact, data_uri, jpeg_uri, render_template

NUM_SHOWN = 24  # frames of the contact sheet
SHOWN_WIDTH = 240  # in pixels
NUM_BARS = 30
LONG_NAME = 28  # in characters


class Plot(NamedTuple):
    """One picture of the page, with its description in words."""

    title: str
    uri: str
    alt: str
    caption: str


class SheetFrame(NamedTuple):
    """One frame of the contact sheet."""

    uri: str
    episode: str
    caption: str


def print_statistics(found: StoreStatistics) -> None:
    """Print the statistics as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("store", escape(found.path))
    for name, text in list_rows(found).items():
        table.add_row(name, escape(text))
    Console().print(table)


def list_rows(found: StoreStatistics) -> dict[str, str]:
    """Return the statistics as text, by name."""
    rows = {
        "length": f"{_format_duration(found.hours)}, {found.num_frames:,} frames, {found.num_episodes:,} episodes",
        "episode": f"{_format_spread(found.seconds)} s",
        "size": _format_counts(found.sizes, "frames"),
        "frames/s": _format_counts(found.frames_per_s, "episodes"),
        "cameras": _format_counts(found.cameras, "episodes"),
        "splits": _format_counts(found.splits, "episodes"),
        "licences": ", ".join(found.licences),
        "measured": f"{found.num_measured:,} of {found.num_episodes:,} episodes",
        "brightness": f"{_format_spread(found.brightness)} of 255",
        "motion": f"{_format_spread(found.motion)} grey levels from frame to frame",
        "near-duplicates": f"{found.near_duplicate_share:.1%} of the frames (ingest dropped {found.dropped_frames:,})",
    }
    for name, counts in found.labels.items():
        rows[f"label {name}"] = f"{found.num_classes[name]} classes: {_format_counts(counts, '')}"
    return {name: text for name, text in rows.items() if text}


def render_statistics(store: Store, found: StoreStatistics, measured: Measured) -> str:
    """Return the page as text. It holds its pictures, so it is one file."""
    facts = [
        Fact("Length", _format_duration(found.hours)),
        Fact("Frames", f"{found.num_frames:,}"),
        Fact("Episodes", f"{found.num_episodes:,}"),
        Fact("Near-duplicates", f"{found.near_duplicate_share:.1%}", "of the frames"),
        Fact("Licences", ", ".join(found.licences), warnings=("unknown licence",) * ("unknown" in found.licences)),
    ]
    plots = [
        _histogram(
            "Length of an episode", measured.seconds, "seconds", "episodes", "Seconds from first to last frame."
        ),
        _histogram(
            "Brightness", measured.brightness, "grey level", "episodes", "Mean grey level, 0 black to 255 white."
        ),
        _histogram(
            "Motion",
            measured.motion,
            "grey levels",
            "frames",
            "Mean absolute difference from the frame before, at 32x24 pixels. Frames near 0 show nothing new. "
            "The largest 1 % are left out.",
        ),
        _histogram(
            "Near-duplicates",
            100 * measured.near_duplicates,
            "% of the episode",
            "episodes",
            "Share of frames that nearly equal the frame before, in stretches of half a second or more.",
        ),
        *(_bars(name, counts, found.num_classes[name]) for name, counts in found.labels.items() if len(counts) > 1),
    ]
    return render_template(
        "robossl.report",
        "data.html",
        title=store.path.name,
        found=found,
        rows=list_rows(found),
        facts=facts,
        plots=plots,
        frames=list(_contact_sheet(store)),
    )


def _format_duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _format_spread(spread: Spread) -> str:
    return f"median {spread.median:.3g} (5 % {spread.p5:.3g}, 95 % {spread.p95:.3g})"


def _format_counts(counts: dict[str, int], unit: str) -> str:
    shown = ", ".join(f"{name} ({count:,}{f' {unit}' if unit else ''})" for name, count in list(counts.items())[:6])
    return f"{shown}, ..." if len(counts) > 6 else shown


def _histogram(title: str, values: Float64[ndarray, " n"], unit: str, what: str, caption: str) -> Plot:
    shown = values[values <= np.quantile(values, 0.99)] if what == "frames" and len(values) else values
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        axes.hist(shown, bins=NUM_BARS, color=BLUE)
        axes.set(xlabel=unit, ylabel=what)
        axes.set_axisbelow(True)
        uri = _to_uri(figure)
    middle = f"{np.median(values):.3g}" if len(values) else "unknown"
    return Plot(title, uri, f"Histogram of {title.lower()} over {len(values)} {what}: median {middle} {unit}", caption)


def _bars(label: str, counts: dict[str, int], num_classes: int) -> Plot:
    names = [name if len(name) <= LONG_NAME else f"{name[: LONG_NAME - 2]}..." for name in counts]
    with mpl.rc_context(STYLE | {"text.parse_math": False}):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(range(len(names)), list(counts.values()), color=BLUE)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="episodes")
        axes.set_axisbelow(True)
        uri = _to_uri(figure)
    most = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:3])
    caption = f"{num_classes} classes" + (f", the {len(counts)} most frequent" if num_classes > len(counts) else "")
    return Plot(f"Label {label}", uri, f"Episodes by {label}: {most}", caption)


def _to_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri(buffer.getvalue(), "svg+xml")


def _contact_sheet(store: Store) -> list[SheetFrame]:
    chosen = np.unique(np.linspace(0, store.num_episodes - 1, NUM_SHOWN).round().astype(int))
    frames = []
    for number in chosen:
        first, end = int(store.episode_start[number]), int(store.episode_start[number + 1])
        if first == end:
            continue
        row = (first + end) // 2
        pixels = store.decode([row])[0].permute(1, 2, 0).contiguous().numpy()
        image = Image.fromarray(pixels)
        image.thumbnail((SHOWN_WIDTH, SHOWN_WIDTH))
        episode = str(store.episode_id[number])
        frames.append(SheetFrame(jpeg_uri(np.asarray(image)), episode, f"{store.time_seconds[row]:.1f} s"))
    return frames
