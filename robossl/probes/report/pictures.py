"""Pictures of the page: the views that were applied, and frames that are taken for another."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.report.words import title

MAX_GROUPS, MAX_PAIRS = 4, 4


@dataclass(frozen=True, slots=True)
class TakenFor:
    """Frames under a view, each with the clean frame that was found in its place, and the one that was wanted."""

    factor: str
    level: int
    triples: tuple[tuple[UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w 3"]], ...]


def render_sheet(sheet: Path | bytes | None) -> str:
    """The contact sheet, a PNG."""
    if sheet is None:
        return ""
    raw = sheet if isinstance(sheet, bytes) else sheet.read_bytes()
    return (
        '<section id="views"><h2>What was applied</h2><p class="lead">One frame under every factor and strength, '
        "as the encoder got it, before its own preprocessing.</p>"
        f'<figure class="card sheet"><img src="{_uri(raw, "png")}" alt="Contact sheet: a frame under every factor, a '
        'row each, from mild to severe"></figure></section>'
    )


def render_neighbours(groups: Sequence[TakenFor]) -> str:
    """The worst retrievals."""
    shown = [group for group in groups if group.triples][:MAX_GROUPS]
    if not shown:
        return ""
    cards = "".join(_group(group) for group in shown)
    return (
        '<section id="neighbours"><h2>Taken for another</h2><p class="lead">Frames under a change, and the unchanged '
        "frame that the encoder finds nearest. Where that is another one, a policy sees another scene.</p>"
        f'<div class="takens">{cards}</div></section>'
    )


def _group(group: TakenFor) -> str:
    name = f"{title(group.factor)}, strength {group.level}"
    rows = "".join(
        '<div class="taken">'
        + "".join(
            f'<figure class="{kind}"><img src="{_picture(frame)}" alt="{escape(f"{words} under {name}")}">'
            f"<figcaption>{words}</figcaption></figure>"
            for frame, kind, words in zip(
                triple, ("asked", "miss", "wanted"), ("shown", "✗ found", "wanted"), strict=True
            )
        )
        + "</div>"
        for triple in group.triples[:MAX_PAIRS]
    )
    return f'<article class="card"><h3>{escape(name)}</h3>{rows}</article>'


def _picture(frame: UInt8[ndarray, "h w 3"]) -> str:
    import numpy as np
    from simplejpeg import encode_jpeg

    return _uri(encode_jpeg(np.ascontiguousarray(frame), quality=82), "jpeg")


def _uri(raw: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
