"""Copy batches to a GPU on a stream of their own, so that the GPU trains on one batch while the next one is copied."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from robossl.views import RawBatch, RawFrames


class CopyStream(Protocol):
    """The stream of a device on which copies run, beside the stream on which the device trains."""

    def pin(self, tensor: Tensor) -> Tensor:
        """Return the tensor in pinned memory, from which the device copies without the help of the CPU."""

    def beside(self) -> AbstractContextManager[object]:
        """Start the copies in a `with` block on this stream."""

    def join(self) -> None:
        """Let what is started on the training stream from now on wait for the copies that were started so far."""

    def keep(self, tensor: Tensor) -> None:
        """Keep the memory of a copied tensor until the training stream has done what was started on it before."""


class CudaCopyStream:
    """The stream of copies of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pin(self, tensor: Tensor) -> Tensor:
        """See `CopyStream`."""
        return tensor.pin_memory()

    def beside(self) -> AbstractContextManager[object]:
        """See `CopyStream`."""
        return torch.cuda.stream(self.stream)

    def join(self) -> None:
        """See `CopyStream`."""
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def keep(self, tensor: Tensor) -> None:
        """See `CopyStream`."""
        tensor.record_stream(torch.cuda.current_stream(self.device))


def transfer(raw: RawBatch, device: torch.device, stream: CopyStream) -> RawBatch:
    """Return a batch whose pixels are on the device; everything else stays on the CPU, where views are drawn.

    The copy starts at once, even if the device has not finished the steps before. The host waits for nothing.
    """
    pinned = {clip: frames if frames.pixels.is_pinned() else _pin(frames, stream) for clip, frames in raw.clips.items()}
    with stream.beside():
        clips = {
            clip: replace(frames, pixels=frames.pixels.to(device, non_blocking=True)) for clip, frames in pinned.items()
        }
    stream.join()
    for frames in clips.values():
        stream.keep(frames.pixels)
    return replace(raw, clips=clips)


def _pin(frames: RawFrames, stream: CopyStream) -> RawFrames:
    return replace(frames, pixels=stream.pin(frames.pixels))
