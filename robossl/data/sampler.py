"""Choose the frames of each step as a pure function of (seed, step), so that resuming needs only the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from robossl.data.mixture import FrameStore
from robossl.data.store import Store
from robossl.data.times import NUM_UNIFORMS, RULES
from robossl.errors import InputError
from robossl.views import ClipSpec

EPOCH_STREAM, FRAME_STREAM, OFFSET_STREAM, MIX_STREAM = 1, 2, 3, 4  # numbers of random streams, one per purpose
# Pool i (store i of a mixture) adds i * POOL_STREAMS to the numbers of its random streams, so pools share no stream.
POOL_STREAMS = 2**32


class ClipRows(NamedTuple):
    """The rows of one clip for each anchor of a batch; an anchor is the frame around which a clip is drawn."""

    rows: Int64[ndarray, "b t"]
    time_seconds: Float64[ndarray, "b t"]
    valid: Bool[ndarray, "b t"]  # whether the requested time lies in the episode


@dataclass(slots=True)
class Sampler:
    """Draws the anchors (frames) of each batch of all ranks, and the clips around them.

    `epoch_over` says what an epoch contains: every frame of `rows` once ("frames"), or one random frame of every
    episode ("episodes"). With "episodes", no batch has near-identical frames, which a contrastive method would use as
    negatives. If the last batch of an epoch is not full, it is dropped.

    Raises:
        InputError: the batch is larger than an epoch.
    """

    store: FrameStore
    rows: Int64[ndarray, " n"]
    seed: int
    batch_size: int  # number of samples in the batch of all ranks (processes)
    epoch_over: Literal["frames", "episodes"] = "frames"
    pool: int = 0  # index of the store in a mixture; each index has its own random order
    _epoch: int = -1
    _order: Int64[ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        """Refuse a batch that is larger than an epoch."""
        if self.batch_size > self.units_per_epoch:
            raise InputError(
                f"batch of {self.batch_size} is larger than the data: {self.units_per_epoch} {self.epoch_over}; "
                "lower train.batch_size or ingest more"
            )

    @property
    def drawn_from(self) -> tuple[int, ...]:
        """The number of the store in the mixture that this sampler draws from, as a tuple of one."""
        return (self.pool,)

    @property
    def units_per_epoch(self) -> int:
        """Number of frames or episodes in an epoch, including those of the dropped last batch."""
        if self.epoch_over == "frames":
            return len(self.rows)
        return len(np.unique(self.store.episode_of(self.rows)))

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in an epoch."""
        return self.units_per_epoch // self.batch_size

    def anchors(self, step: int) -> Int64[ndarray, " b"]:
        """Return the anchors (frames around which clips are drawn) of one step, as store rows of its global batch."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        return self.epoch_order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]

    def epoch_order(self, epoch: int) -> Int64[ndarray, " n"]:
        """Return the rows of one epoch in drawing order."""
        if epoch != self._epoch or self._order is None:
            self._order, self._epoch = self._draw_epoch(epoch), epoch
        return self._order

    def _draw_epoch(self, epoch: int) -> Int64[ndarray, " n"]:
        order = generator(self.seed, EPOCH_STREAM + self.pool * POOL_STREAMS, epoch)
        if self.epoch_over == "frames":
            return self.rows[order.permutation(len(self.rows))]
        episode = self.store.episode_of(self.rows)
        starts = np.flatnonzero(np.diff(episode, prepend=-1))
        lengths = np.diff(starts, append=len(self.rows))
        picks = starts + (
            generator(self.seed, FRAME_STREAM + self.pool * POOL_STREAMS, epoch).random(len(starts)) * lengths
        ).astype(np.int64)
        return self.rows[picks[order.permutation(len(starts))]]

    def clip_rows(self, step: int, clip: ClipSpec, anchors: Int64[ndarray, " b"], local: slice) -> ClipRows:
        """Return the rows of one clip around each of this rank's anchors (frames); see `draw_clip`.

        `local` is this rank's slice of the global batch.
        """
        return draw_clip(self.store, clip, anchors, _uniforms(self.seed, step, clip, self.batch_size)[local])


@dataclass(slots=True)
class MixedSampler:
    """Draws every batch from all pools of a mixture (a pool is one of its stores), and shuffles it.

    A pool's share of the batch is proportional to its weight. If the share is not a whole number, it is rounded up in
    some steps and down in others. Each pool has its own epochs. A pool starts a new epoch only with a new batch, so no
    batch contains a frame (or an episode, see `Sampler.epoch_over`) twice.

    Raises:
        InputError: a weight gives less than one sample per batch, or more samples than the store has.
    """

    pools: tuple[Sampler, ...]
    weights: tuple[float, ...]
    batch_size: int  # number of samples in the batch of all ranks (processes)

    def __post_init__(self) -> None:
        """Check that every weight gives at least one sample per batch, and not more samples than the store has."""
        least = min(self.weights) / sum(self.weights) * self.batch_size
        if least < 1:
            raise InputError(
                f"weights {self.weights} give a store {least:.2f} samples of a batch of {self.batch_size}; "
                "raise its weight in data.mix or train.batch_size"
            )
        for pool, share in zip(self.pools, self._shares(), strict=True):
            if share + 1 > pool.units_per_epoch:
                raise InputError(
                    f"weights {self.weights} take {share:.0f} of a batch of {self.batch_size} from a store that has "
                    f"{pool.units_per_epoch} {pool.epoch_over}; lower its weight or train.batch_size, or ingest more"
                )

    @property
    def drawn_from(self) -> tuple[int, ...]:
        """The indices of the stores that this sampler draws from, among the stores of the mixture."""
        return tuple(pool.pool for pool in self.pools)

    @property
    def rows(self) -> Int64[ndarray, " n"]:
        """Rows of the mixture that can be drawn as anchors (frames around which clips are drawn)."""
        return np.concatenate([pool.rows for pool in self.pools])

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch; an epoch of a mixture is one pass over its first pool (store)."""
        return self._epoch_steps()[0]

    def anchors(self, step: int) -> Int64[ndarray, " b"]:
        """Return the anchors (frames around which clips are drawn) of one step, as mixture rows of its global batch."""
        draws = []
        for number, (pool, steps) in enumerate(zip(self.pools, self._epoch_steps(), strict=True)):
            epoch = step // steps
            first, start, stop = (self._drawn(at)[number] for at in (epoch * steps, step, step + 1))
            draws.append(pool.epoch_order(epoch)[start - first : stop - first])
        order = generator(self.pools[0].seed, MIX_STREAM, step).permutation(self.batch_size)
        return np.concatenate(draws)[order]

    def _shares(self) -> list[float]:
        """Return the mean number of samples that each pool (store) gives to a batch."""
        return [weight / sum(self.weights) * self.batch_size for weight in self.weights]

    def _epoch_steps(self) -> list[int]:
        """Return the number of steps in an epoch of each pool (store).

        One frame or episode per pool stays in reserve, because rounding may add one sample to the pool's share.
        """
        return [int((p.units_per_epoch - 1) / share) for p, share in zip(self.pools, self._shares(), strict=True)]

    def _drawn(self, step: int) -> list[int]:
        """Return how many samples each pool (store) gave before a step; the counts sum to step * batch_size."""
        ends = np.floor(np.cumsum(self.weights) / sum(self.weights) * (step * self.batch_size) + 1e-6).astype(np.int64)
        return [int(count) for count in np.diff(ends, prepend=0)]

    def clip_rows(self, step: int, clip: ClipSpec, anchors: Int64[ndarray, " b"], local: slice) -> ClipRows:
        """Return the rows of one clip around each of this rank's anchors (frames); see `draw_clip`.

        `local` is this rank's slice of the global batch.
        """
        # The samplers of all stores hold the whole mixture and the same seed, so the first sampler can be used for all.
        pool = self.pools[0]
        return draw_clip(pool.store, clip, anchors, _uniforms(pool.seed, step, clip, self.batch_size)[local])


def draw_clip(store: FrameStore, clip: ClipSpec, anchors: Int64[ndarray, " b"], u: Float64[ndarray, "b 4"]) -> ClipRows:
    """Return the rows of one clip around each anchor (frame): the latest frame at or before each requested time.

    If a requested time lies outside the episode, the result has the episode's first or last frame instead, with the
    time of this frame, and marks it as not valid. `u` are uniform random numbers, one row per anchor.
    """
    if not clip.has_time:
        own_time = store.time_seconds[anchors][:, None]
        return ClipRows(anchors[:, None], own_time, np.ones_like(own_time, dtype=bool))
    episodes = store.episode_of(anchors)
    end_seconds = store.end_seconds[episodes]
    wanted = RULES[clip.rule](clip, u, store.time_seconds[anchors], end_seconds)
    rows = np.empty(wanted.shape, np.int64)
    for i, episode in enumerate(episodes):
        start, stop = store.episode_start[episode : episode + 2]
        times = store.time_seconds[start:stop]
        at = np.searchsorted(times, wanted[i] + 1e-6, side="right") - 1
        rows[i] = start + np.clip(at, 0, stop - start - 1)
    valid = (wanted >= -1e-6) & (wanted <= end_seconds[:, None] + 1e-6)
    return ClipRows(rows, store.time_seconds[rows], valid)


def _uniforms(seed: int, step: int, clip: ClipSpec, batch_size: int) -> Float64[ndarray, "n 4"]:
    """Draw the random numbers of a clip for the batch of all ranks (processes).

    Each rank takes a slice of these numbers, so the number of ranks does not change the clips.
    """
    return generator(seed, OFFSET_STREAM + hash_clip(clip), step).random((batch_size, NUM_UNIFORMS))


def thin_rows(store: Store, rows: Int64[ndarray, " n"], frames_per_s: float) -> Int64[ndarray, " m"]:
    """Return the first of `rows` in each interval of 1 / `frames_per_s` seconds of an episode.

    Frames that are closer together than this interval look nearly alike.
    """
    slot = np.floor(store.time_seconds[rows] * frames_per_s + 1e-6).astype(np.int64)
    episode = store.episode_of(rows)
    is_first = (np.diff(slot, prepend=-1) != 0) | (np.diff(episode, prepend=-1) != 0)
    first: Int64[ndarray, " m"] = rows[is_first]
    return first


def hash_clip(clip: ClipSpec) -> int:
    """Return a small hash of a clip's definition that is stable across Python versions."""
    text = repr((clip.num_frames, clip.stride_seconds, clip.offset_seconds, clip.rule)).encode()
    return int.from_bytes(text, "little") % (2**31 - 1)


def generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    """Return a Philox generator (Salmon et al., SC 2011) for a seed, a stream and a counter.

    It depends on these numbers only, so a checkpoint needs no generator state.
    """
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, 0, counter]))
