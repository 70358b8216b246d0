import subprocess
import sys

import numpy as np
import pytest
import torch

from robossl.data.loader import BatchLoader, ResidentFrames, pad_stack
from robossl.data.sampler import Sampler
from robossl.data.store import Store
from robossl.views import ClipSpec, RawBatch

IMAGE, CLIP = ClipSpec(), ClipSpec(num_frames=3, stride_seconds=0.2, offset_seconds=(-0.5, 0.5))
CPU = torch.device("cpu")


def loader_of(store: Store, *, resident: bool = False, workers: int = 0, local: slice = slice(0, 4)) -> BatchLoader:
    rows = store.rows(None)
    return BatchLoader(
        store=store,
        sampler=Sampler(store, rows, seed=2, batch_size=4),
        clips=(IMAGE, CLIP, IMAGE),
        local=local,
        device=CPU,
        num_workers=workers,
        resident_rows=rows if resident else None,
    )


def assert_equal(a: RawBatch, b: RawBatch) -> None:
    assert a.step == b.step and torch.equal(a.index, b.index) and torch.equal(a.position, b.position)
    assert a.clips.keys() == b.clips.keys()
    for clip, frames in a.clips.items():
        assert torch.equal(frames.pixels, b.clips[clip].pixels)
        assert torch.equal(frames.source_hw, b.clips[clip].source_hw)
        assert torch.equal(frames.time_seconds, b.clips[clip].time_seconds)


def test_resident_workers_and_plain_give_the_same_batches(clip_store: Store) -> None:
    plain = list(loader_of(clip_store).batches(start=5, stop=8))
    assert [raw.step for raw in plain] == [5, 6, 7]
    assert plain[0].clips[CLIP].pixels.shape[:3] == (4, 3, 3)
    for other in (loader_of(clip_store, resident=True), loader_of(clip_store, workers=2)):
        for a, b in zip(plain, other.batches(start=5, stop=8), strict=True):
            assert_equal(a, b)


def test_a_rank_gets_its_slice_of_the_global_batch(clip_store: Store) -> None:
    whole, part = loader_of(clip_store).batch(3), loader_of(clip_store, local=slice(2, 4)).batch(3)
    assert torch.equal(whole.position[2:], part.position)
    for clip in (IMAGE, CLIP):
        assert torch.equal(whole.clips[clip].pixels[2:], part.clips[clip].pixels)


def test_frames_in_memory_take_their_own_size_and_no_more(clip_store: Store) -> None:
    code = """
import sys, numpy as np, torch
from robossl.data.loader import ResidentFrames
from robossl.data.store import open_store
def used(): return int(open("/proc/self/statm").read().split()[1]) * 4096
store = open_store(sys.argv[1])
rows = np.repeat(store.rows(None), 6)
before = used()
frames = ResidentFrames(store, rows, torch.device("cpu"))
print((used() - before) / len(frames.buffer))
"""
    line = [sys.executable, "-c", code, str(clip_store.path)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3


def test_frames_of_other_sizes_are_padded_right_and_below() -> None:
    frames = [torch.full((2, 3, 3), 7, dtype=torch.uint8), torch.full((4, 2, 3), 9, dtype=torch.uint8)]
    out = pad_stack(frames, np.array([[2, 3], [4, 2]]))
    assert out.shape == (2, 4, 3, 3)
    assert out[0, :2].unique().tolist() == [7] and out[0, 2:].unique().tolist() == [0]
    assert out[1, :, :2].unique().tolist() == [9] and out[1, :, 2:].unique().tolist() == [0]


@pytest.mark.parametrize("rows", [[0, 1, 2], [5, 9]])
def test_resident_size_is_known_before_it_is_taken(clip_store: Store, rows: list[int]) -> None:
    held = np.array(rows)
    assert ResidentFrames(clip_store, held, CPU).buffer.numel() == ResidentFrames.num_bytes(clip_store, held)
