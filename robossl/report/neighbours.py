"""Find the nearest neighbours of a few frames, with the run's encoder and with its backbone with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.data.store import Store
from robossl.errors import InputError
from robossl.measure.features import embed
from robossl.measure.store_rows import StoreRows, spread_rows
from robossl.measure.subjects import open_subject, random_reference
from robossl.report.html import jpeg_uri
from robossl.report.record import RunRecord

NUM_QUERIES, NUM_NEIGHBOURS = 6, 5
POOL_FRAMES = 1000  # number of frames among which neighbours are searched; a larger pool takes more time
THUMBNAIL_WIDTH = 200  # in pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame to show."""

    uri: str
    episode: str
    label: str
    similarity: float = 1.0  # cosine similarity between the features of this frame and of the query
    is_hit: bool = False  # True if this frame has the label of the query

    @property
    def short_name(self) -> str:
        """The file name of the episode, without folder and suffix."""
        return PurePosixPath(self.episode).stem


@dataclass(frozen=True, slots=True)
class Query:
    """A frame with the neighbours that the encoder finds and those that the backbone with random weights finds."""

    picture: Picture
    encoder: tuple[Picture, ...]
    random: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The queries with their neighbours, and the size of the pool of frames that was searched."""

    # Label that decides which neighbours are hits. If the store has no label, this is "" and nothing is a hit.
    label: str
    queries: tuple[Query, ...]
    num_frames: int  # number of frames in the pool
    num_episodes: int  # number of episodes from which the frames in the pool come
    split: str  # split from which the queries come

    @property
    def num_shown(self) -> int:
        """Number of neighbours that the encoder found for all queries. The random weights found the same number."""
        return sum(len(query.encoder) for query in self.queries)

    @property
    def encoder_hits(self) -> int:
        """Number of neighbours that the encoder found and that have the label of their query."""
        return sum(picture.is_hit for query in self.queries for picture in query.encoder)

    @property
    def random_hits(self) -> int:
        """Number of neighbours that the random weights found and that have the label of their query."""
        return sum(picture.is_hit for query in self.queries for picture in query.random)


def find_neighbours(
    record: RunRecord,
    store: Store,
    *,
    label: str = "",
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Gallery:
    """Find the nearest neighbours of a few frames with the encoder and with its backbone with random weights.

    Both networks embed the same pool of frames. A neighbour is never of the query's episode, and two neighbours are
    never of the same episode.

    Raises:
        InputError: the run has no encoder yet, or the store lacks the label or has too few episodes.
    """
    if not record.encoder:
        raise InputError(f"{record.path} has no encoder yet; wait for its first checkpoint or leave out --store")
    if store.num_episodes <= NUM_NEIGHBOURS:
        raise InputError(f"{store.path} has {store.num_episodes} episodes; neighbours need more than {NUM_NEIGHBOURS}")
    label = label or _default_label(record, store)
    labels = store.labels(label) if label else np.full(store.num_episodes, "")
    split = "val" if "val" in store.manifest.splits else ""
    queried = _choose_queries(store, labels, split)
    rows = np.union1d(_choose_pool(store), queried)
    encoder = open_subject(str(record.path), outputs=("pooled",))
    found = []
    frames, total = StoreRows(store, rows), 2 * len(rows)
    for subject in (encoder, random_reference(encoder)):
        features = embed(subject, frames, advance=lambda done: watch("look up neighbours", done, total))["pooled"]
        found.append(
            find_nearest(features, store.episode_of(rows), np.searchsorted(rows, queried), count=NUM_NEIGHBOURS)
        )
    queries = []
    for i, row in enumerate(queried):
        picture = _make_picture(store, int(row), labels)
        sides = [
            tuple(
                _make_picture(store, int(rows[j]), labels, cosine, picture.label)
                for j, cosine in zip(*side[i], strict=True)
            )
            for side in found
        ]
        queries.append(Query(picture, sides[0], sides[1]))
    return Gallery(label, tuple(queries), len(rows), len(np.unique(store.episode_of(rows))), split or "the whole store")


def find_nearest(
    features: Float[ndarray, "n d"], episodes: Int[ndarray, " n"], queries: Int[ndarray, " q"], *, count: int
) -> list[tuple[Int[ndarray, " k"], Float[ndarray, " k"]]]:
    """Return for each query the rows of the features with the largest cosine similarity, and these similarities.

    No returned row is of the query's episode, and no two rows are of the same episode.
    """
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
    """Return the label that was evaluated, else the label of the online kNN, else the store's first label, else ""."""
    evaluated = [result.label for evaluation in record.evaluations for result in evaluation.results]
    wanted = [*evaluated, record.setting("knn", "label"), *store.label_names]
    return next((str(name) for name in wanted if name in store.label_names), "")


def _choose_queries(store: Store, labels: ndarray, split: str) -> Int[ndarray, " q"]:
    """Choose some episodes, taking one of each class in turn, and return the row of each episode's middle frame.

    Frequent classes come first. If any episode has a label, only labelled episodes are chosen.
    """
    episodes = np.flatnonzero(store.episode_split == split) if split else np.arange(store.num_episodes)
    labelled = episodes[labels[episodes] != ""]
    episodes = labelled if len(labelled) else episodes
    classes, counts = np.unique(labels[episodes], return_counts=True)
    members = [episodes[labels[episodes] == name] for name in classes[np.argsort(-counts, kind="stable")]]
    turn = [each[i * len(each) // NUM_QUERIES] for i in range(NUM_QUERIES) for each in members if i < len(each)]
    chosen = np.array(list(dict.fromkeys(turn))[:NUM_QUERIES])
    return spread_rows(store, np.sort(chosen), per_episode=1)


def _choose_pool(store: Store) -> Int[ndarray, " n"]:
    episodes = np.unique(np.linspace(0, store.num_episodes - 1, POOL_FRAMES).astype(np.int64))
    return spread_rows(store, episodes, per_episode=max(1, min(4, POOL_FRAMES // len(episodes))))


def _make_picture(store: Store, row: int, labels: ndarray, similarity: float = 1.0, wanted: str = "") -> Picture:
    episode = int(store.episode_of(np.array([row]))[0])
    label = str(labels[episode])
    is_hit = bool(label) and label == wanted
    return Picture(_make_thumbnail(store, row), str(store.episode_id[episode]), label, float(similarity), is_hit)


def _make_thumbnail(store: Store, row: int) -> str:
    frame = store.decode([row])[0]
    height = round(frame.shape[1] * THUMBNAIL_WIDTH / frame.shape[2])
    small = F.interpolate(frame[None].float(), (height, THUMBNAIL_WIDTH), mode="bilinear", antialias=True)[0]
    pixels = small.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return jpeg_uri(pixels)
