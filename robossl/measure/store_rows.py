"""Frames of a store, chosen evenly from each episode."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.data.store import Store


def spread_rows(store: Store, episodes: Int[ndarray, " e"], *, per_episode: int) -> Int[ndarray, " n"]:
    """Split each episode into `per_episode` equal parts and return the middle row of each part, in ascending order."""
    starts, stops = store.episode_start[episodes], store.episode_start[episodes + 1]
    middles = (np.arange(per_episode) + 0.5) / per_episode
    rows = starts[:, None] + ((stops - starts)[:, None] * middles).astype(np.int64)
    return np.unique(rows)


@dataclass(frozen=True, slots=True)
class StoreRows:
    """Frames at the given rows of a store, as a `FrameSource` of `robossl.measure.features` that can be embedded."""

    store: Store
    rows: Int[ndarray, " n"]

    @property
    def digest(self) -> str:
        """Digest that identifies the content of the store and the chosen rows."""
        digest = hashlib.sha256(f"{self.store.content_hash} ".encode())
        digest.update(np.ascontiguousarray(self.rows, dtype="<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> list[UInt8[ndarray, "h w 3"]]:
        """Decode the frames of `rows[start:stop]`."""
        frames = self.store.decode(self.rows[start:stop])
        return [np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
