"""Make HTML tables, which notebooks show through `_repr_html_`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def html_table(
    title: str, rows: Iterable[Sequence[str]], *, header: Sequence[str] = (), notes: Sequence[str] = ()
) -> str:
    """Return a table as HTML, with all texts escaped.

    >>> "&lt;b&gt;" in html_table("<b>", [["frames", "12"]])
    True
    """
    return _template().render(title=title, rows=list(rows), header=header, notes=notes)


@cache
def _template() -> jinja2.Template:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True).get_template("table.html")
