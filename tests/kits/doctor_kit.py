"""Real data sets in which one defect can be planted: videos of a moving block, and LeRobot v2.1 data sets of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS, LENGTH = 10, 20
CAMERA = "observation.images.top"


def block_frames(seed: int, *, num: int = LENGTH, hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Frames of a bright block that moves over a still texture, (num, h, w, 3) uint8."""
    random = np.random.default_rng(seed)
    frames = np.repeat(random.integers(40, 160, (1, hw[0] // 4, hw[1] // 4, 3), np.uint8), num, axis=0)
    frames = frames.repeat(4, axis=1).repeat(4, axis=2)
    for number in range(num):
        left = (2 * number + int(random.integers(4))) % (hw[1] - 16)
        frames[number, 8:28, left : left + 16] = 230
    return frames


def write_video(path: Path, frames: np.ndarray, *, places: Sequence[float] | None = None, fps: int = FPS) -> Path:
    """A lossless video; frame k is shown at places[k] frame intervals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"qp": "0", "g": "4", "bf": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv444p", Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            place = number if places is None else places[number]
            frame.pts, frame.time_base = round(1000 * place / fps), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@dataclass
class RecordedEpisode:
    """One episode of a data set; what is left out is without a defect."""

    seed: int
    frames: np.ndarray | None = None
    places: Sequence[float] | None = None
    state: np.ndarray | None = None
    seconds: np.ndarray | None = None
    length: int | None = None  # as stated
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in what is left out."""
        self.frames = block_frames(self.seed) if self.frames is None else self.frames
        num = len(self.frames) if self.seconds is None else len(self.seconds)
        moving = np.random.default_rng(self.seed).normal(size=(num, 2)).cumsum(0)
        self.state = moving if self.state is None else self.state
        self.seconds = np.arange(len(self.state)) / FPS if self.seconds is None else self.seconds


def write_data_set(root: Path, episodes: Sequence[RecordedEpisode], *, splits: dict[str, str] | None = None) -> Path:
    """A LeRobot v2.1 data set with a licence, states and actions."""
    (root / "meta").mkdir(parents=True)
    (root / "README.md").write_text("---\nlicense: mit\n---\n")
    (root / "data/chunk-000").mkdir(parents=True)
    lines = []
    for index, each in enumerate(episodes):
        assert each.frames is not None and each.state is not None and each.seconds is not None
        write_video(root / f"videos/chunk-000/{CAMERA}/episode_{index:06d}.mp4", each.frames, places=each.places)
        rows = {
            "observation.state": pa.array(each.state.tolist(), pa.list_(pa.float32())),
            "action": pa.array((each.state + 1).tolist(), pa.list_(pa.float32())),
            "timestamp": pa.array(each.seconds, pa.float32()),
            "frame_index": np.arange(len(each.seconds)),
            "episode_index": np.full(len(each.seconds), index),
        }
        pq.write_table(pa.table(rows), root / f"data/chunk-000/episode_{index:06d}.parquet")
        length = len(each.seconds) if each.length is None else each.length
        lines.append({"episode_index": index, "tasks": ["push"], "length": length})
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    stats = {"action": [0.0, 0.0], "observation.state": [0.0, 0.0], CAMERA: [0.5, 0.5, 0.5]}
    (root / "meta/stats.json").write_text(json.dumps({name: {"mean": mean} for name, mean in stats.items()}))
    values = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    info = {
        "codebase_version": "v2.1", "fps": FPS, "total_episodes": len(episodes),
        "total_frames": sum(line["length"] for line in lines),
        "splits": splits or {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {CAMERA: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]},
                     "observation.state": values, "action": values},
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    return root
