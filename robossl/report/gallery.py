"""The nearest-neighbour part of the page."""

from __future__ import annotations

from html import escape
from pathlib import PurePosixPath

from robossl.report.neighbours import Gallery, Picture, Query


def render_gallery(gallery: Gallery | None) -> str:
    """Queries with their neighbours; without a gallery, how to get one."""
    if gallery is None:
        return (
            '<section><h2>Nearest neighbours</h2><p class="lead">Not looked up: <code>robossl report RUN --store STORE'
            "</code> shows which frames the encoder finds alike.</p></section>"
        )
    (ours, shown), (random, _) = gallery.hits(lambda query: query.encoder), gallery.hits(lambda query: query.random)
    label = escape(gallery.label)
    queries = "".join(_query(query, gallery.label) for query in gallery.queries)
    return (
        f'<section><h2>Nearest neighbours</h2><p class="lead">{len(gallery.queries)} frames of '
        f"{escape(gallery.split)}, each with the nearest frames of other episodes among {gallery.num_frames:,} "
        f"frames of {gallery.num_episodes:,} episodes. <strong>{ours} of {shown}</strong> neighbours share the "
        f"{label} with this encoder, <strong>{random} of {shown}</strong> with the same network before training. "
        f"So few frames are for looking; the scores above are the measurement.</p>{queries}</section>"
    )


def _query(query: Query, label: str) -> str:
    sides = _strip("This encoder", query.encoder, label) + _strip("Before training", query.random, label)
    asked = _figure(query.picture, "asked", f"{label}: {query.picture.label or 'not given'}", "Query frame")
    return f'<article class="query card">{asked}<div class="sides">{sides}</div></article>'


def _strip(title: str, pictures: tuple[Picture, ...], label: str) -> str:
    hits = sum(picture.is_hit for picture in pictures)
    figures = "".join(_neighbour(picture) for picture in pictures)
    return (
        f"<h3>{escape(title)} <small>{hits} of {len(pictures)} share the {escape(label)}</small></h3>"
        f'<div class="strip">{figures}</div>'
    )


def _neighbour(picture: Picture) -> str:
    mark, kind = ("✓", "hit") if picture.is_hit else ("✗", "miss")
    alt = f"Neighbour, {'same' if picture.is_hit else 'other'} label, cosine {picture.similarity:.2f}"
    return _figure(picture, kind, f"{mark} {picture.label or 'no label'}", alt)


def _figure(picture: Picture, kind: str, caption: str, alt: str) -> str:
    short = PurePosixPath(picture.episode).stem
    return (
        f'<figure class="{kind}"><img src="{picture.uri}" alt="{escape(f"{alt}: {picture.label} in {short}")}" '
        f'title="{escape(picture.episode)}, cosine {picture.similarity:.3f}"><figcaption>{escape(caption)}'
        f"<span>{escape(short)}</span></figcaption></figure>"
    )
