"""A mixture: several stores whose rows are numbered as if they were one store, so that a run draws from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int64, UInt8
from numpy import ndarray

from robossl.data.store import Store

if TYPE_CHECKING:
    from torch import Tensor


class Mixture:
    """Several stores in the given order, whose rows are numbered as if they were one store.

    A pickled mixture contains only the stores, not the joined arrays.

    Args:
        stores: two or more stores.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self.first_row = np.cumsum([0, *(store.num_frames for store in self.stores)])

    def __getstate__(self) -> tuple[Store, ...]:
        """Return the stores; unpickling computes the joined arrays again."""
        return self.stores

    def __setstate__(self, stores: tuple[Store, ...]) -> None:
        """Make the mixture again from its stores."""
        Mixture.__init__(self, stores)

    @cached_property
    def episode_start(self) -> Int64[ndarray, " e_plus_1"]:
        """First row of each episode: episode i has rows episode_start[i] : episode_start[i + 1]."""
        starts = [store.episode_start[:-1] + first for store, first in zip(self.stores, self.first_row, strict=False)]
        return np.concatenate([*starts, self.first_row[-1:]])

    @cached_property
    def end_seconds(self) -> Float64[ndarray, " e"]:
        """Time of each episode's last frame, in seconds since its first frame."""
        return np.concatenate([store.end_seconds for store in self.stores])

    @cached_property
    def time_seconds(self) -> Float64[ndarray, " n"]:
        """Time of each row's frame, in seconds since the start of its episode."""
        return np.concatenate([store.time_seconds for store in self.stores])

    @cached_property
    def frame_hw(self) -> Int16[ndarray, "n 2"]:
        """Height and width of each row's frame."""
        return np.concatenate([store.frame_hw for store in self.stores])

    def episode_of(self, rows: Int64[ndarray, " m"]) -> Int64[ndarray, " m"]:
        """Return the episode number of each row."""
        return np.searchsorted(self.episode_start, rows, side="right") - 1

    def column(self, name: str, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
        """Return a per-frame column at the given rows.

        Raises:
            InputError: a row belongs to a store without the column.
        """
        owner = self._owner(rows)
        parts = {i: self.stores[i].column(name, rows[owner == i] - self.first_row[i]) for i in np.unique(owner)}
        values = np.empty((len(rows), next(iter(parts.values())).shape[1]), np.float32)
        for i, part in parts.items():
            values[owner == i] = part
        return values

    def decode_into(self, row: int, out: UInt8[Tensor, "h w 3"]) -> None:
        """Decode the frame of a row into `out`, contiguous CPU memory of the frame's size."""
        owner = int(self._owner(np.array([row]))[0])
        self.stores[owner].decode_into(int(row - self.first_row[owner]), out)

    def _owner(self, rows: Int64[ndarray, " m"]) -> Int64[ndarray, " m"]:
        return np.searchsorted(self.first_row, rows, side="right") - 1


FrameStore = Store | Mixture
"""Stores that a sampler draws from and a loader decodes."""
