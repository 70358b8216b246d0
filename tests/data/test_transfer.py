"""Copies to a GPU in the order that streams need; the device is torch's meta device, and a list stands for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robossl.data.transfer import transfer
from robossl.views import ClipSpec, RawBatch, RawFrames

META = torch.device("meta")
SINGLE, CLIP = ClipSpec(), ClipSpec(num_frames=2)


@dataclass
class ListedStream:
    """Records the calls that it gets, and the copies that they are about."""

    asked: list[str] = field(default_factory=list)
    is_beside: bool = False
    kept: list[Tensor] = field(default_factory=list)

    def pin(self, tensor: Tensor) -> Tensor:
        self.asked.append("pin")
        return Watched(tensor, self)

    @contextmanager
    def beside(self) -> Iterator[None]:
        self.asked.append("beside")
        self.is_beside = True
        yield
        self.is_beside = False

    def join(self) -> None:
        self.asked.append("join")

    def keep(self, tensor: Tensor) -> None:
        self.asked.append("keep")
        self.kept.append(tensor)


class Watched:
    """A pinned tensor that says when it is copied."""

    def __init__(self, tensor: Tensor, stream: ListedStream) -> None:
        self.tensor, self.stream = tensor, stream

    def to(self, device: torch.device, *, non_blocking: bool) -> Tensor:
        assert self.stream.is_beside and non_blocking
        self.stream.asked.append("copy")
        return self.tensor.to(device)


def raw_batch() -> RawBatch:
    def frames(t: int) -> RawFrames:
        return RawFrames(
            torch.zeros(4, t, 3, 8, 8, dtype=torch.uint8),
            torch.full((4, 2), 8),
            torch.zeros(4, t),
            torch.ones(4, t, dtype=torch.bool),
        )

    return RawBatch(2, torch.arange(4), torch.arange(4), {SINGLE: frames(1), CLIP: frames(2)})


def test_pinned_pixels_are_copied_beside_the_training_which_then_waits_and_keeps_their_memory() -> None:
    stream = ListedStream()
    raw = raw_batch()
    moved = transfer(raw, META, stream)
    assert stream.asked == ["pin", "pin", "beside", "copy", "copy", "join", "keep", "keep"]
    assert all(a.pixels is b for a, b in zip(moved.clips.values(), stream.kept, strict=True))
    assert all(frames.pixels.is_meta for frames in moved.clips.values())
    for clip, frames in moved.clips.items():
        assert frames.pixels.shape == raw.clips[clip].pixels.shape
        assert frames.source_hw.device.type == frames.valid.device.type == "cpu"
    assert moved.index is raw.index and moved.step == 2
