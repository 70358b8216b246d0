"""Measure random 4-frame clips at 224 px per second: from a store, and by seeking in its source videos.

The videos are real, scaled to 456x256 and encoded with distant key frames as cameras do, so both ways decode frames of
the same size. Blocks alternate; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from robossl.data.ingest import ingest
from robossl.data.loader import decode_stack
from robossl.data.store import Store, open_store

SHORT_SIDE, SIZE, NUM_FRAMES, STRIDE_SECONDS, KEY_EVERY, ROUNDS, SECONDS = 256, 224, 4, 5 / 30, 250, 3, 4.0


def scale_videos(data: Path, folder: Path, num_videos: int) -> list[Path]:
    """Copy some videos with a short side of 256 pixels."""
    found = sorted(data.glob("**/*.mp4"))
    made = []
    for path in found[:: max(1, len(found) // num_videos)][:num_videos]:
        made.append(folder / path.name)
        with av.open(str(path)) as old, av.open(str(made[-1]), "w") as new:
            stream = new.add_stream("libx264", rate=30, options={"g": str(KEY_EVERY), "crf": "23"})
            stream.height, stream.width, stream.pix_fmt = SHORT_SIDE, 456, "yuv420p"
            for frame in old.decode(video=0):
                new.mux(stream.encode(frame.reformat(456, SHORT_SIDE, "yuv420p")))
            new.mux(stream.encode())
    return made


def crop(frames: Tensor) -> Tensor:
    """Crop a clip at random with antialiasing, (t, h, w, 3) -> (t, 3, 224, 224); fast in this memory order only."""
    return v2.RandomResizedCrop(SIZE, (0.2, 1.0), antialias=True)(frames.permute(0, 3, 1, 2))


def store_clip(store: Store, rng: np.random.Generator) -> Tensor:
    """Decode a clip that starts at a random row of the store."""
    row = int(rng.integers(store.num_frames))
    episode = int(store.episode_of(np.array([row]))[0])
    first, stop = store.episode_start[episode : episode + 2]
    times = store.time_seconds[row] + STRIDE_SECONDS * np.arange(NUM_FRAMES)
    rows = first + np.searchsorted(store.time_seconds[first:stop], times + 1e-6, side="right") - 1
    return crop(decode_stack(store, rows, store.frame_hw[rows].astype(np.int64)))


def video_clip(paths: list[Path], rng: np.random.Generator) -> Tensor:
    """Decode a random clip by seeking to the key frame before it."""
    with av.open(str(paths[rng.integers(len(paths))])) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        seconds = float(stream.duration * stream.time_base)
        wanted = rng.uniform(0, max(0.0, seconds - NUM_FRAMES * STRIDE_SECONDS)) + STRIDE_SECONDS * np.arange(
            NUM_FRAMES
        )
        container.seek(int(wanted[0] / stream.time_base), stream=stream)
        frames: list[Tensor] = []
        for frame in container.decode(stream):
            if frame.time + 1 / 30 > wanted[len(frames)]:
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
                if len(frames) == NUM_FRAMES:
                    break
        return crop(torch.stack([*frames, *[frames[-1]] * (NUM_FRAMES - len(frames))]))


def clips_per_s(way: str, where: Path | list[Path], seed: int, seconds: float) -> float:
    """Return clips per second of one process."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    clip = partial(store_clip, open_store(where)) if isinstance(where, Path) else partial(video_clip, where)
    clip(rng)
    start, num_clips = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        assert clip(rng).shape == (NUM_FRAMES, 3, SIZE, SIZE)
        num_clips += 1
    return num_clips / (time.perf_counter() - start)


def main() -> None:
    """Print clips per second of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/droid_web"))
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    if not args.data.exists():
        print(f"skipped: no videos at {args.data}")
        return
    with tempfile.TemporaryDirectory() as scratch, get_context("spawn").Pool(args.processes) as pool:
        paths = scale_videos(args.data, Path(scratch), args.videos)
        store = Path(scratch) / "store"
        ingest(paths, out=store, short_side=SHORT_SIDE)
        rates: dict[str, list[float]] = {"store": [], "videos": []}
        for round_ in range(ROUNDS):
            for way, where in (("store", store), ("videos", paths)):
                calls = [(way, where, 100 * round_ + process, SECONDS) for process in range(args.processes)]
                rates[way].append(sum(pool.starmap(clips_per_s, calls)))
    ratios = [ours / theirs for ours, theirs in zip(rates["store"], rates["videos"], strict=True)]
    print(f"random {NUM_FRAMES}-frame {SIZE} px clips/s of {SHORT_SIDE} px frames, {args.processes} processes:")
    print(f"  store {statistics.median(rates['store']):.0f} (target 500), ratio {statistics.median(ratios):.1f}")
    print(f"  seeking in h264 with a key frame every {KEY_EVERY}: {statistics.median(rates['videos']):.0f}")


if __name__ == "__main__":
    main()
