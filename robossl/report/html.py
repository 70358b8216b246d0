"""Make HTML pages from jinja2 templates with autoescape. A page is one file that contains its styles and pictures."""

from __future__ import annotations

import base64
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from numpy import ndarray
from simplejpeg import encode_jpeg


class Fact(NamedTuple):
    """One fact, shown as a tile in the header of a page."""

    name: str
    value: str
    detail: str = ""  # text after the value, in smaller letters
    warnings: tuple[str, ...] = ()
    is_wide: bool = False


class Banner(NamedTuple):
    """A coloured box in a page. Its colour depends on `kind`, which is "good", "warn" or "bad"."""

    kind: str
    title: str
    text: str = ""


def render_template(package: str, name: str, **values: object) -> str:
    """Render a template of a package. The template may use the shared templates of `robossl.report`."""
    return _environment(package).get_template(name).render(values)


@cache
def _environment(package: str) -> Environment:
    packages = dict.fromkeys((package, "robossl.report"))
    return Environment(
        loader=ChoiceLoader([PackageLoader(each) for each in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(raw: bytes, kind: str) -> str:
    """Return a picture as a data URI; `kind` is "png", "jpeg" or "svg+xml"."""
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def jpeg_uri(pixels: UInt8[ndarray, "h w 3"]) -> str:
    """Return a frame as a JPEG in a data URI."""
    return data_uri(encode_jpeg(np.ascontiguousarray(pixels), quality=82), "jpeg")
