"""Nearest neighbours of a few frames, found by the run's encoder and by its backbone at random init."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray
from simplejpeg import encode_jpeg

from robossl.data.store import Store
from robossl.encode import load_encoder, random_encoder
from robossl.errors import InputError
from robossl.evaluate.features import embed_rows, spread_rows
from robossl.evaluate.subjects import embedder, random_config
from robossl.report.record import RunRecord

NUM_QUERIES, NUM_NEIGHBOURS = 6, 5
POOL_FRAMES = 1000  # among which neighbours are looked for: bounds the wait
THUMBNAIL_WIDTH = 200  # pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame to show."""

    uri: str
    episode: str
    label: str
    similarity: float = 1.0  # cosine to the query
    is_hit: bool = False  # same label as the query


@dataclass(frozen=True, slots=True)
class Query:
    """A frame, its neighbours by the encoder and those by random init."""

    picture: Picture
    encoder: tuple[Picture, ...]
    random: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """What is shown, and how it was made."""

    label: str  # "": the store has none, and no neighbour is a hit or a miss
    queries: tuple[Query, ...]
    num_frames: int  # of the pool
    num_episodes: int
    split: str  # of the queries

    def hits(self, which: Callable[[Query], tuple[Picture, ...]]) -> tuple[int, int]:
        """Neighbours with the query's label, and neighbours shown."""
        shown = [picture for query in self.queries for picture in which(query)]
        return sum(picture.is_hit for picture in shown), len(shown)


def look_up(
    record: RunRecord,
    store: Store,
    *,
    label: str = "",
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Gallery:
    """Embed a pool of frames twice and find the nearest of other episodes, one an episode.

    Raises:
        InputError: the run has no encoder yet, the store no such label or too few episodes.
    """
    if not record.encoder:
        raise InputError(f"{record.path} has no encoder yet; wait for its first checkpoint or leave out --store")
    if store.num_episodes <= NUM_NEIGHBOURS:
        raise InputError(f"{store.path} has {store.num_episodes} episodes; neighbours need more than {NUM_NEIGHBOURS}")
    label = label or _default_label(record, store)
    labels = store.labels(label) if label else np.full(store.num_episodes, "")
    split = "val" if "val" in store.manifest.splits else ""
    queried = _queries(store, labels, split)
    rows = np.union1d(_pool(store), queried)
    encode = load_encoder(record.path, outputs=("pooled",))
    found = []
    for each in (
        embedder("encoder", encode),
        embedder("random", random_encoder(random_config(encode.card), 0, outputs=("pooled",))),
    ):
        features = embed_rows(each, store, rows, advance=lambda done: watch("look up neighbours", done, 2 * len(rows)))
        found.append(nearest(features, store.episode_of(rows), np.searchsorted(rows, queried), count=NUM_NEIGHBOURS))
    queries = []
    for i, row in enumerate(queried):
        picture = _picture(store, int(row), labels)
        sides = [
            tuple(
                _picture(store, int(rows[j]), labels, cosine, picture.label) for j, cosine in zip(*side[i], strict=True)
            )
            for side in found
        ]
        queries.append(Query(picture, sides[0], sides[1]))
    return Gallery(label, tuple(queries), len(rows), len(np.unique(store.episode_of(rows))), split or "whole store")


def nearest(
    features: Float[ndarray, "n d"], episodes: Int[ndarray, " n"], queries: Int[ndarray, " q"], *, count: int
) -> list[tuple[Int[ndarray, " k"], Float[ndarray, " k"]]]:
    """For each query the nearest rows by cosine, from other episodes and at most one from each, with their cosines."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    found = []
    for query in queries:
        cosine = unit @ unit[query]
        order = np.argsort(-cosine, kind="stable")
        order = order[episodes[order] != episodes[query]]
        first = np.sort(np.unique(episodes[order], return_index=True)[1])[:count]
        found.append((order[first], cosine[order[first]]))
    return found


def _default_label(record: RunRecord, store: Store) -> str:
    """Return the label that was evaluated or watched, else the store's first, else nothing."""
    evaluated = [result.label for evaluation in record.evaluations for result in evaluation.results]
    wanted = [*evaluated, record.setting("knn", "label"), *store.label_names]
    return next((str(name) for name in wanted if name in store.label_names), "")


def _queries(store: Store, labels: ndarray, split: str) -> Int[ndarray, " q"]:
    """Middle frames of labelled episodes: one of each class in turn, the commonest class first."""
    episodes = np.flatnonzero(store.episode_split == split) if split else np.arange(store.num_episodes)
    labelled = episodes[labels[episodes] != ""]
    episodes = labelled if len(labelled) else episodes
    classes, counts = np.unique(labels[episodes], return_counts=True)
    members = [episodes[labels[episodes] == name] for name in classes[np.argsort(-counts, kind="stable")]]
    turn = [each[i * len(each) // NUM_QUERIES] for i in range(NUM_QUERIES) for each in members if i < len(each)]
    chosen = np.array(list(dict.fromkeys(turn))[:NUM_QUERIES])
    return spread_rows(store, np.sort(chosen), per_episode=1)


def _pool(store: Store) -> Int[ndarray, " n"]:
    episodes = np.unique(np.linspace(0, store.num_episodes - 1, POOL_FRAMES).astype(np.int64))
    return spread_rows(store, episodes, per_episode=max(1, min(4, POOL_FRAMES // len(episodes))))


def _picture(store: Store, row: int, labels: ndarray, similarity: float = 1.0, wanted: str = "") -> Picture:
    episode = int(store.episode_of(np.array([row]))[0])
    label = str(labels[episode])
    is_hit = bool(label) and label == wanted
    return Picture(_thumbnail(store, row), str(store.episode_id[episode]), label, float(similarity), is_hit)


def _thumbnail(store: Store, row: int) -> str:
    frame = store.decode([row])[0]
    height = round(frame.shape[1] * THUMBNAIL_WIDTH / frame.shape[2])
    small = F.interpolate(frame[None].float(), (height, THUMBNAIL_WIDTH), mode="bilinear", antialias=True)[0]
    pixels = small.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(pixels, quality=82)).decode()}"
