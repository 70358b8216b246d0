"""Write tests/data/rlds with tensorflow-datasets, which the tests themselves do not need.

    pip install tensorflow-cpu tensorflow-datasets
    python tools/make_rlds.py tests/data/rlds

Made with tensorflow 2.21.0 and tensorflow-datasets 4.9.10. Four episodes of 5, 6, 7 and 8 steps for `train` (two
shards), two of 3 and 4 for `val`. The picture of step s in episode e shows the number 16 e + s.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

LENGTHS = {"train": (5, 6, 7, 8), "val": (3, 4)}


def picture(number: int) -> np.ndarray:
    """As in tests/kits/counters.py."""
    pixels = np.full((48, 64, 3), (180, 60, 40), np.uint8)
    for bit in range(8):
        pixels[:24, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    return pixels


def steps(episode: int, length: int) -> list[dict[str, Any]]:
    """The steps of an episode."""
    return [
        {
            "observation": {
                "image": picture(16 * episode + step),
                "wrist_image": picture(255 - 16 * episode - step),
                "depth": np.full((48, 64, 1), step, np.uint16),
                "state": np.array([episode, step, 0.5], np.float32),
                "matrix": np.full((2, 2), step, np.float64),
            },
            "action": {"arm": np.array([step, -step], np.float32), "open": step % 2 == 0},
            "reward": float(step == length - 1),
            "is_first": step == 0,
            "is_last": step == length - 1,
            "language_instruction": f"lift the cube {episode} ü",
        }
        for step in range(length)
    ]


class Lift(tfds.core.GeneratorBasedBuilder):
    """An RLDS data set as Open X-Embodiment has them."""

    VERSION = tfds.core.Version("0.1.0")

    def _info(self) -> tfds.core.DatasetInfo:
        rgb = {"shape": (48, 64, 3), "dtype": np.uint8}
        f = tfds.features
        observation = {
            "image": f.Image(**rgb, encoding_format="jpeg"),
            "wrist_image": f.Image(**rgb, encoding_format="png"),
            "depth": f.Image(shape=(48, 64, 1), dtype=np.uint16, encoding_format="png"),
            "state": f.Tensor(shape=(3,), dtype=np.float32),
            "matrix": f.Tensor(shape=(2, 2), dtype=np.float64),
        }
        step = {
            "observation": observation,
            "action": {"arm": f.Tensor(shape=(2,), dtype=np.float32), "open": f.Scalar(dtype=np.bool_)},
            "reward": f.Scalar(dtype=np.float32),
            "is_first": f.Scalar(dtype=np.bool_),
            "is_last": f.Scalar(dtype=np.bool_),
            "language_instruction": f.Text(),
        }
        metadata = f.FeaturesDict({"file_path": f.Text()})
        features = f.FeaturesDict({"steps": f.Dataset(step), "episode_metadata": metadata})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in LENGTHS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        first = 0 if split == "train" else len(LENGTHS["train"])
        for episode, length in enumerate(LENGTHS[split], start=first):
            yield episode, {"steps": steps(episode, length), "episode_metadata": {"file_path": f"{episode}.npy"}}


if __name__ == "__main__":
    config = tfds.download.DownloadConfig(num_shards=2)
    Lift(data_dir=Path(sys.argv[1])).download_and_prepare(download_config=config)
