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
    queries = "".join(_query(query, gallery.label) for query in gallery.queries)
    return (
        f'<section><h2>Nearest neighbours</h2><p class="lead">{len(gallery.queries)} frames of '
        f"{escape(gallery.split)}, each with the nearest frames of other episodes among {gallery.num_frames:,} "
        f"frames of {gallery.num_episodes:,} episodes. {_count_hits(gallery)}</p>{queries}</section>"
    )


def _count_hits(gallery: Gallery) -> str:
    if not gallery.label:
        return "The store has no labels that could mark them."
    (ours, shown), (random, _) = gallery.hits(lambda query: query.encoder), gallery.hits(lambda query: query.random)
    return (
        f"<strong>{ours} of {shown}</strong> neighbours share the {escape(gallery.label)} with this encoder, "
        f"<strong>{random} of {shown}</strong> with the same network before training. "
        "So few frames are for looking; the scores above are the measurement."
    )


def _query(query: Query, label: str) -> str:
    sides = _strip("This encoder", query.encoder, label) + _strip("Before training", query.random, label)
    caption = f"{label}: {query.picture.label or 'not given'}" if label else "query"
    asked = _figure(query.picture, "asked", caption, "Query frame")
    return f'<article class="query card">{asked}<div class="sides">{sides}</div></article>'


def _strip(title: str, pictures: tuple[Picture, ...], label: str) -> str:
    hits = f"<small>{sum(picture.is_hit for picture in pictures)} of {len(pictures)} share the {escape(label)}</small>"
    figures = "".join(_neighbour(picture, label) for picture in pictures)
    return f'<h3>{escape(title)} {hits if label else ""}</h3><div class="strip">{figures}</div>'


def _neighbour(picture: Picture, label: str) -> str:
    if not label:
        return _figure(picture, "unmarked", f"cosine {picture.similarity:.2f}", "Neighbour")
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
