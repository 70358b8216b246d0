"""Load the batches that a sampler draws.

Frames are decoded in worker processes, or once into the memory of the training device.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import parent_process, resource_tracker

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robossl.data.mixture import FrameStore
from robossl.data.sampler import ClipRows, MixedSampler, Sampler
from robossl.data.transfer import CudaCopyStream, transfer
from robossl.data.worker import start_worker
from robossl.views import ClipSpec, RawBatch, RawFrames

_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a terminal or torchrun sends these to all processes of a run
DECODE_CHUNK = 512  # frames decoded at a time to fill `ResidentFrames`


@dataclass(slots=True)
class BatchLoader:
    """Yields this rank's (process's) part of every batch.

    The batches do not depend on the number of workers, nor on whether frames are held in memory. `local` is this rank's
    slice of the batch of all ranks. To hold the frames in memory, give all rows that can be drawn as `resident_rows`;
    the first batch then decodes all of them. If `resident_rows` is None, every batch decodes its own frames.
    """

    store: FrameStore
    sampler: Sampler | MixedSampler
    clips: tuple[ClipSpec, ...]
    local: slice
    device: torch.device
    num_workers: int
    resident_rows: Int64[ndarray, " n"] | None = None
    _held: ResidentFrames | None = None

    def batches(self, *, start: int, stop: int) -> Generator[RawBatch, None, None]:
        """Return the raw (not yet augmented) batches of steps `start` to `stop - 1`, in order.

        Closing the generator ends the workers.
        """
        if self.resident_rows is not None:
            return (self.batch(step) for step in range(start, stop))
        read = self._from_workers(start, stop) if self.num_workers else (self.batch(s) for s in range(start, stop))
        return self._onto_gpu(read) if self.device.type == "cuda" else read

    def _onto_gpu(self, batches: Generator[RawBatch, None, None]) -> Generator[RawBatch, None, None]:
        stream = CudaCopyStream(self.device)
        with contextlib.closing(batches):
            for raw in batches:
                yield transfer(raw, self.device, stream)

    def _from_workers(self, start: int, stop: int) -> Generator[RawBatch, None, None]:
        loader: DataLoader[RawBatch] = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self.num_workers,
            prefetch_factor=3,
            # A thread pins the batches of the workers (`RawBatch.pin_memory`).
            pin_memory=self.device.type == "cuda",
            # Forking is unsafe once torch has threads.
            multiprocessing_context="forkserver",
            worker_init_fn=_start_worker,
        )
        # Start the resource tracker before blocking signals, because starting it unblocks them.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        try:
            # The fork server inherits the blocked signals, and the workers inherit them from the fork server.
            batches = iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from batches

    def batch(self, step: int) -> RawBatch:
        """Return the raw (not yet augmented) batch of one step."""
        anchors = self.sampler.anchors(step)[self.local]
        clips: dict[ClipSpec, RawFrames] = {}
        for clip in dict.fromkeys(self.clips):
            drawn = self.sampler.clip_rows(step, clip, anchors, self.local)
            clips[clip] = self._frames(drawn, clip.columns)
        position = torch.arange(self.sampler.batch_size)[self.local]
        return RawBatch(step=step, position=position, index=torch.from_numpy(anchors), clips=clips)

    def _frames(self, drawn: ClipRows, columns: tuple[str, ...]) -> RawFrames:
        b, t = drawn.rows.shape
        flat = drawn.rows.reshape(-1)
        hw = self.store.frame_hw[flat].astype(np.int64)
        if self.resident_rows is None:
            pixels = decode_stack(self.store, flat, hw)
        else:
            self._held = self._held or ResidentFrames(self.store, self.resident_rows, self.device)
            pixels = self._held.gather(flat, hw)
        return RawFrames(
            pixels=pixels.view(b, t, *pixels.shape[1:]).permute(0, 1, 4, 2, 3),
            source_hw=torch.from_numpy(hw.reshape(b, t, 2)[:, 0].copy()),
            time_seconds=torch.from_numpy(drawn.time_seconds),
            valid=torch.from_numpy(drawn.valid),
            columns={name: torch.from_numpy(self.store.column(name, flat).reshape(b, t, -1)) for name in columns},
        )


class _Steps(Dataset[RawBatch]):
    """Maps a step to its raw (not yet augmented) batch, for the workers of the DataLoader."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def __getitem__(self, step: int) -> RawBatch:
        return self.loader.batch(step)


def _start_worker(number: int) -> None:
    """Make a worker ignore signals that go to the whole run (from Ctrl-C, torchrun or systemd).

    The trainer needs batches until it has saved a checkpoint. A worker ends if the trainer sends it SIGTERM, or if the
    trainer dies.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    start_worker()
    parent = parent_process()
    assert parent is not None

    def end_when_the_trainer_says() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    threading.Thread(target=end_when_the_trainer_says, daemon=True).start()


class ResidentFrames:
    """The frames of the given rows, decoded once and kept as uint8 (h, w, 3) on the training device.

    Args:
        store: source of the frames.
        rows: store rows to hold, ascending.
        device: device that holds the frames.
    """

    def __init__(self, store: FrameStore, rows: Int64[ndarray, " n"], device: torch.device) -> None:
        self.rows = rows
        sizes = store.frame_hw[rows].astype(np.int64).prod(axis=1) * 3
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        self.buffer = torch.empty(int(self.offsets[-1]), dtype=torch.uint8, device=device)
        # Threads decode in parallel, because decoding releases the interpreter lock.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(lambda at: self._fill(store, at), range(0, len(rows), DECODE_CHUNK)):
                pass

    def _fill(self, store: FrameStore, at: int) -> None:
        chunk = self.rows[at : at + DECODE_CHUNK]
        start, stop = self.offsets[at], self.offsets[at + len(chunk)]
        held = self.buffer[start:stop]
        on_cpu = self.buffer.device.type == "cpu"
        # The memory of an array is used again after it is freed. That of torch.empty is not: it is aligned, and glibc
        # does not fit an aligned block into a freed one of the same size, so the chunks would double the memory.
        decoded = held if on_cpu else torch.from_numpy(np.empty(int(stop - start), np.uint8))
        for i, row in enumerate(chunk, start=at):
            h, w = (int(x) for x in store.frame_hw[row])
            store.decode_into(int(row), decoded[self.offsets[i] - start : self.offsets[i + 1] - start].view(h, w, 3))
        if not on_cpu:
            held.copy_(decoded)

    @staticmethod
    def num_bytes(store: FrameStore, rows: Int64[ndarray, " n"]) -> int:
        """Return the memory that the frames of these rows need, in bytes."""
        return int(store.frame_hw[rows].astype(np.int64).prod(axis=1).sum()) * 3

    def gather(self, rows: Int64[ndarray, " b"], hw: Int64[ndarray, "b 2"]) -> UInt8[Tensor, "b h w 3"]:
        """Return the frames of these rows, padded to the same height and width."""
        at = np.searchsorted(self.rows, rows)
        frames = [
            self.buffer[self.offsets[i] : self.offsets[i + 1]].view(int(h), int(w), 3)
            for i, (h, w) in zip(at, hw, strict=True)
        ]
        return pad_stack(frames, hw)


def decode_stack(store: FrameStore, rows: Int64[ndarray, " b"], hw: Int64[ndarray, "b 2"]) -> UInt8[Tensor, "b h w 3"]:
    """Decode the frames of these rows into one tensor, padded to the same height and width.

    Frames of equal size need no padding, so they are decoded directly into the result.
    """
    h, w = (int(x) for x in hw.max(axis=0))
    same = bool((hw == hw[0]).all())
    out = (torch.empty if same else torch.zeros)((len(rows), h, w, 3), dtype=torch.uint8)
    for i, row in enumerate(rows):
        if same:
            store.decode_into(int(row), out[i])
            continue
        own = torch.empty((int(hw[i, 0]), int(hw[i, 1]), 3), dtype=torch.uint8)
        store.decode_into(int(row), own)
        out[i, : own.shape[0], : own.shape[1]] = own
    return out


def pad_stack(frames: list[UInt8[Tensor, "h w 3"]], hw: Int64[ndarray, "b 2"]) -> UInt8[Tensor, "b h w 3"]:
    """Stack frames of different sizes; pad with zeros at the right and bottom."""
    if (hw == hw[0]).all():
        return torch.stack(frames)
    h, w = (int(x) for x in hw.max(axis=0))
    out = torch.zeros((len(frames), h, w, 3), dtype=torch.uint8, device=frames[0].device)
    for i, frame in enumerate(frames):
        out[i, : frame.shape[0], : frame.shape[1]] = frame
    return out
