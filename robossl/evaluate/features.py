"""Frozen features of evenly spaced frames of each episode, kept on disk for the next evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as cached
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from robossl.data.store import Store
from robossl.durable import check_folder
from robossl.errors import InputError
from robossl.evaluate.kept import read_kept, write_kept

PIXELS_HW = (12, 16)
CHUNK = 64  # frames decoded and embedded at a time


@dataclass(frozen=True, slots=True)
class Embedder:
    """Something that turns frames into vectors, and what identifies it on disk."""

    name: str
    digest: str
    embed: Callable[[UInt8[ndarray, "b h w 3"]], Float[ndarray, "b d"]]


def pixels_embedder() -> Embedder:
    """The reference that has learned nothing: the frame averaged down to 12 x 16 RGB cells, 576 numbers."""
    return Embedder("pooled pixels", f"pooled-pixels-{PIXELS_HW[0]}x{PIXELS_HW[1]}", pooled_pixels)


def pooled_pixels(frames: UInt8[ndarray, "b h w 3"]) -> Float[ndarray, "b 576"]:
    """Mean colour of each of 12 x 16 cells, in [0, 1]."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    pooled: Float[ndarray, "b 576"] = F.adaptive_avg_pool2d(pixels, PIXELS_HW).flatten(1).numpy()
    return pooled


def spread_rows(store: Store, episodes: Int[ndarray, " e"], *, per_episode: int) -> Int[ndarray, " n"]:
    """Rows of up to `per_episode` frames of each episode, at the middles of equal stretches, in order."""
    starts, stops = store.episode_start[episodes], store.episode_start[episodes + 1]
    middles = (np.arange(per_episode) + 0.5) / per_episode
    rows = starts[:, None] + ((stops - starts)[:, None] * middles).astype(np.int64)
    return np.unique(rows)


def embed_rows(
    embedder: Embedder,
    store: Store,
    rows: Int[ndarray, " n"],
    *,
    cache: Path | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Float[ndarray, "n d"]:
    """Features of the rows, from the cache when it has them.

    Args:
        embedder: What embeds.
        store: Where the frames are.
        rows: Which frames.
        cache: Folder that keeps features by embedder, store content, rows and the code that makes them; None keeps
            nothing.
        advance: Called with the number of frames done since the last call.

    Raises:
        InputError: features that are not finite, or a cache that cannot be written.
    """
    path = cache / f"{_key(embedder, store, rows)}.safetensors" if cache else None
    if path and (before := read_kept(path)):
        advance(len(rows))
        return before[0]["features"]
    if path:
        check_folder(path.parent, option="--cache")
    parts = []
    for start in range(0, len(rows), CHUNK):
        parts.append(_embed_frames(embedder, store.decode(rows[start : start + CHUNK])))
        if not np.isfinite(parts[-1]).all():
            raise InputError(
                f"{embedder.name} gives features that are not finite, which cannot be compared; use an encoder from "
                "before its training diverged"
            )
        advance(len(parts[-1]))
    features = np.concatenate(parts)
    if path:
        write_kept(path, {"features": features}, {"embedder": embedder.digest, "store": store.content_hash})
    return features


def _embed_frames(embedder: Embedder, frames: list[Tensor]) -> Float[ndarray, "b d"]:
    """Embed frames of mixed sizes: a batch for each size, results in the order given."""
    sizes = [tuple(frame.shape) for frame in frames]
    features: dict[int, ndarray] = {}
    for size in dict.fromkeys(sizes):
        places = [i for i, other in enumerate(sizes) if other == size]
        batch = torch.stack([frames[i] for i in places]).permute(0, 2, 3, 1).contiguous()
        features |= dict(zip(places, embedder.embed(batch.numpy()), strict=True))
    return np.stack([features[i] for i in range(len(frames))]).astype(np.float32)


def _key(embedder: Embedder, store: Store, rows: Int[ndarray, " n"]) -> str:
    digest = hashlib.sha256(f"{embedder.digest} {store.content_hash} {_made_by()} ".encode())
    digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]


@cached
def _made_by() -> str:
    """Tells apart the code that makes features: weights do not say how frames reach them, nor what is pooled."""
    digest = hashlib.sha256(f"{version('torch')} {version('timm')} ".encode())
    for source in ("encoder.py", "evaluate/features.py"):
        digest.update((Path(__file__).parents[1] / source).read_bytes())
    return digest.hexdigest()
