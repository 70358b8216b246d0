"""Draw matplotlib figures: as SVG inside a page, and as PNG files beside the page. Sizes are in points."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robossl.common.atomic_io import atomic_write

# Width of a figure, in points. A phone is about as wide, so it shows the letters at their full size.
WIDTH = 360
INK, SOFT, LINE, GREY = "#1d252c", "#56616b", "#c9d0d6", "#d9dde1"
STYLE: dict[Any, Any] = {
    # A fixed salt gives the same ids in an SVG each time, so that equal reports give equal pages.
    "svg.hashsalt": "robossl",
    # A name may contain dollar signs, which must not start a formula.
    "text.parse_math": False,
    # Keep text as text, not as shapes, so that readers can search and copy it.
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": INK,
    "xtick.color": SOFT,
    "ytick.color": INK,
    "hatch.linewidth": 0.6,
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply our matplotlib style to what is drawn and saved inside the `with` block."""
    with mpl.rc_context(STYLE):
        yield


def canvas(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure and its axes. Coordinates are in points, from the top left corner."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def to_svg(figure: Figure, description: str) -> Markup:
    """Return a figure as an SVG element that fills its container. Screen readers read the description aloud."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG picture 1,000 pixels wide. An old file is replaced in one step."""
    with styled(), atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=200, facecolor="white", metadata={"Software": None})


def shorten_name(name: str, length: int = 30) -> str:
    """Cut a name that is longer than `length`, and add dots at its end."""
    return name if len(name) <= length else f"{name[: length - 2]}..."


def format_number(value: float | None) -> str:
    """Format a number with two digits and no leading zero; None gives "-".

    >>> format_number(0.824), format_number(-0.05), format_number(1.0), format_number(None)
    ('.82', '-.05', '1.0', '-')
    """
    if value is None:
        return "-"
    text = f"{value:z.2f}"
    if abs(value) >= 0.995:
        return f"{value:.1f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
