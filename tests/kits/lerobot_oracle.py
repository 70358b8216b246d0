"""Run by a Python that has the real lerobot: reads a data set with it and compares it with arrays.

    python lerobot_oracle.py DATASET ARRAYS.npz

ARRAYS holds `frames` as they were rendered, and columns under their names; prints what was found as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def main(root: str, arrays: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/collected", root=Path(root), delta_timestamps={"action": [0.0, 0.1]})
    expected = np.load(arrays, allow_pickle=False)
    assert len(dataset) == len(expected["frames"]), (len(dataset), len(expected["frames"]))
    errors = []
    for number in np.random.default_rng(0).permutation(len(dataset)):  # any order: files are sought in
        item = dataset[int(number)]
        frame = item["observation.images.top"].numpy().transpose(1, 2, 0) * 255
        errors.append(float(np.abs(frame - expected["frames"][number]).mean()))
        for name in expected.files:
            if name not in ("frames", "action"):
                assert np.allclose(item[name].numpy(), expected[name][number]), (name, number)
        assert np.allclose(item["action"][0].numpy(), expected["action"][number])
        assert item["agent"] == "pink" and item["task"] == "dots/Known-v0"
        assert int(item["index"]) == number
    stats = {
        name: {key: np.asarray(value).tolist() for key, value in of.items()} for name, of in dataset.meta.stats.items()
    }
    print(json.dumps({"episodes": dataset.num_episodes, "worst": max(errors), "stats": stats}))


if __name__ == "__main__":
    main(*sys.argv[1:])
