"""Drawing: matplotlib figures as SVG inside the page and as PNG beside it; sizes are in points."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robossl.durable import atomic_write
from robossl.probes.result import Family

WIDTH = 360  # points: the width of a phone, so that letters keep their size there
INK, SOFT, LINE = "#1d252c", "#56616b", "#c9d0d6"
GREY = "#d9dde1"
MARKS: dict[Family, tuple[str, str]] = {  # colour (Okabe and Ito's) and form of each family
    "photometric": ("#0072B2", "o"),
    "geometric": ("#D55E00", "s"),
    "scene": ("#009E73", "^"),
    "temporal": ("#7a4f9a", "D"),
}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "robossl",  # equal reports give equal pages
    "text.parse_math": False,  # a name may hold dollars
    "svg.fonttype": "none",  # letters stay letters: they can be searched and copied
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
    """Our style for what is drawn and saved inside."""
    with mpl.rc_context(STYLE):
        yield


def canvas(height: float) -> tuple[Figure, Axes]:
    """An empty sheet of that height whose coordinates are points from its top left corner."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def to_svg(figure: Figure, words: str) -> str:
    """The figure as an element of a page, as wide as its place; `words` say it to who cannot see it."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)


def write_png(figure: Figure, path: Path) -> None:
    """The figure as a picture, 1,000 pixels wide, written aside and renamed."""
    with styled(), atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=200, facecolor="white", metadata={"Software": None})
