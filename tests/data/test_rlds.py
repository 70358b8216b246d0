"""RLDS, written by tensorflow-datasets (tools/make_rlds.py): the right frames and columns, and what is refused."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from counters import check, read_all
from places import ROOT

from robossl.data.ingest import ingest
from robossl.data.sources import detect_format, source_class

WRITTEN = ROOT / "tests" / "data" / "rlds"
FOLDER = "lift/0.1.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN, tmp_path / "oxe ü"))


def shard(root: Path, split: str, number: int) -> Path:
    return root / FOLDER / f"lift-{split}.tfrecord-{number:05d}-of-00002"


def test_every_frame_is_the_right_one() -> None:
    assert detect_format(WRITTEN) == detect_format(WRITTEN / "lift" / "0.1.0") == "rlds"
    listing = source_class("rlds")(WRITTEN).listing()
    assert listing.columns == {"action.arm": 2, "action.open": 1, "matrix": 4, "reward": 1, "state": 3}
    assert not listing.skipped and [note.reason.split(",")[0] for note in listing.notes] == [
        "steps/observation/depth has 1 channel(s) in uint16"
    ]
    found = read_all(WRITTEN, "rlds")
    seen = {}
    for unit in listing.units:
        frames, length = found[unit.key], unit.num_frames
        episode, is_wrist = int(frames[0].columns["state"][0]), unit.labels["camera"] == "wrist_image"
        numbers = [16 * episode + step for step in range(length)]
        check(frames, [255 - n for n in numbers] if is_wrist else numbers, [step / 10 for step in range(length)])
        assert unit.labels["task"] == f"lift the cube {episode} ü" and unit.labels["dataset"] == "lift"
        for step, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.columns["state"], np.float32([episode, step, 0.5]))
            np.testing.assert_array_equal(frame.columns["action.arm"], [step, -step])
            np.testing.assert_array_equal(frame.columns["matrix"], [step] * 4)
            assert frame.columns["action.open"] == (step % 2 == 0) and frame.columns["reward"] == (step == length - 1)
        seen[episode, unit.labels["camera"]] = (unit.split, length)
    lengths = [("train", 5), ("train", 6), ("train", 7), ("train", 8), ("val", 3), ("val", 4)]
    assert seen == {(e, c): lengths[e] for e in range(6) for c in ("image", "wrist_image")}


def test_a_rate_and_one_shard(root: Path) -> None:
    store = ingest(shard(root, "val", 1), out=root / "store", workers=1, image_fps=5)
    assert store.num_episodes == 2 and not store.manifest.num_skipped
    np.testing.assert_allclose(np.diff(store.time_seconds[: store.episode_start[1]]), 0.2)


def test_damage_is_named_and_the_rest_is_stored(root: Path, tmp_path: Path) -> None:
    path = shard(root, "train", 0)
    path.write_bytes(path.read_bytes()[:-30])
    path = shard(root, "train", 1)
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data)
    path = shard(root, "val", 0)
    path.write_bytes(gzip.compress(path.read_bytes()))
    shard(root, "val", 1).unlink()
    store = ingest(root, out=tmp_path / "store", workers=1)
    (source,) = store.manifest.sources
    problems = {problem.path.removeprefix(f"{FOLDER}/"): problem.reason for problem in source.skipped}
    assert "breaks off in record 1 at byte" in problems["lift-train.tfrecord-00000-of-00002"]
    assert "the 1 episodes before are read" in problems["lift-train.tfrecord-00000-of-00002"]
    assert "wrong checksum (crc32c)" in problems["lift-train-00001/000001/image"]
    assert "gzip" in problems["lift-val.tfrecord-00000-of-00002"]
    assert problems["lift-val"] == "1 of 2 shards are missing (00001); the rest is read"
    assert all(len(reason.splitlines()) == 1 for reason in problems.values())
    assert store.num_episodes == 4


def test_a_shard_cut_between_two_records_is_noticed(root: Path) -> None:
    path = shard(root, "train", 0)
    data = path.read_bytes()
    path.write_bytes(data[: 16 + struct.unpack("<Q", data[:8])[0]])
    (problem,) = source_class("rlds")(root).listing().skipped
    assert problem.reason.startswith("holds 1 of the 2 episodes that dataset_info.json states")


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (None, "no features.json beside the tfrecords"),
        ("{", "features.json cannot be read"),
        ("[]", "features.json cannot be read"),
        ('{"featuresDict": {"features": {"image": {}}}}', "features.json holds image; RLDS needs steps"),
    ],
)
def test_features_that_cannot_be_used(root: Path, features: str | None, said: str) -> None:
    path = root / FOLDER / "features.json"
    path.unlink() if features is None else path.write_text(features)
    listing = source_class("rlds")(root).listing()
    assert not listing.units and listing.skipped[0].reason.startswith(said)


def test_other_file_formats_and_other_files(root: Path) -> None:
    info = root / FOLDER / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "array_record"}))
    for path in (root / FOLDER).glob("*tfrecord*"):
        path.unlink()
    assert detect_format(root) == "rlds"
    assert "stored as array_record" in source_class("rlds")(root).listing().skipped[0].reason
    shard(root, "train", 0).write_bytes(b"no tfrecord at all, but long enough")
    skipped = [problem.reason for problem in source_class("rlds")(root).listing().skipped]
    assert "record 0 has a wrong checksum of its length" in skipped[0] and "missing" in skipped[1]


def test_without_the_reader_the_pip_line_is_given() -> None:
    program = (
        "import sys; sys.modules['google_crc32c'] = None\nfrom pathlib import Path\n"
        "from robossl.data.sources import source_class\nsource_class('rlds')(Path(sys.argv[1])).listing()"
    )
    done = subprocess.run([sys.executable, "-c", program, WRITTEN], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("pip install 'robossl[rlds]'")
