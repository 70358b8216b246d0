"""The site that `make docs` builds with Sphinx from the README, docs/, the changelog and the docstrings, offline.

The source folder is the checkout, so that links between pages are the same in an editor and on the site.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

import robossl

project, html_title, version = "RoboSSL", "RoboSSL", robossl.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [".*", "build", "dist", "runs", "stores", "models", "quickstart"]  # not searched at all
html_theme = "furo"
html_copy_source = html_show_sourcelink = False
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_theme_options = {"top_of_page_buttons": []}

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the tables of docs/simsiam_tables.md have headings of level 3
highlight_language = "none"
default_role = "code"  # docstrings quote code by single backticks
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_preprocess_types = False

PAGES = """

```{toctree}
:hidden:
:glob:
:titlesonly:

%s
```
"""


def add_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Add the list of pages to the front page, and those of docs/X/ to docs/X.md."""
    if name == root_doc:
        source[0] += PAGES % "docs/api\ndocs/*\nCONTRIBUTING\nCHANGELOG"
    elif (Path(app.srcdir) / name).is_dir():
        source[0] += PAGES % f"/{name}/*"


def check_names(app: Sphinx) -> None:
    """Warn of a public name that the API page leaves out or that has no docstring."""
    page = (Path(app.srcdir) / "docs" / "api.md").read_text(encoding="utf-8").replace("()", "").split()
    missing = [name for name in robossl.__all__ if name not in page or not getattr(robossl, name).__doc__]
    if missing:
        logging.getLogger(__name__).warning("not in docs/api.md, or without a docstring: %s", ", ".join(missing))


def setup(app: Sphinx) -> None:
    """Connect the two."""
    app.connect("source-read", add_pages)
    app.connect("builder-inited", check_names)
