"""`robossl convert --to lerobot-v3`: read back, every frame, time, column, task and split is the right one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from counters import check, jpeg, picture
from lerobot_kit import code_of, grey_video
from places import ROOT

from robossl.cli.main import main
from robossl.data.convert import convert
from robossl.data.ingest import ingest
from robossl.data.sources import source_class
from robossl.errors import InputError


def test_a_store_of_two_cameras_is_read_back(tmp_path: Path) -> None:
    ingest(ROOT / "tests/data/rlds", out=tmp_path / "store", workers=1, image_fps=5)
    assert main(["convert", str(tmp_path / "store"), "--to", "lerobot-v3", "--out", str(tmp_path / "set")]) == 0
    source = source_class("lerobot")(tmp_path / "set")
    listing = source.listing()
    assert listing.columns == {"action.arm": 2, "action.open": 1, "matrix": 4, "reward": 1, "state": 3}
    assert not listing.skipped and not listing.notes and len(listing.units) == 12
    for unit in listing.units:
        frames = list(source.frames(unit))
        episode = int(frames[0].columns["state"][0])
        numbers = [16 * episode + step for step in range((5, 6, 7, 8, 3, 4)[episode])]
        if unit.labels["camera"] == "wrist_image":
            numbers = [255 - number for number in numbers]
        check(frames, numbers, [step / 5 for step in range(len(numbers))])
        assert unit.split == ("val" if episode > 3 else "train") and unit.labels["task"] == f"lift the cube {episode} ü"
        for step, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.columns["state"], np.float32([episode, step, 0.5]))
            np.testing.assert_array_equal(frame.columns["action.arm"], [step, -step])


def test_frames_that_ingest_dropped_are_written_again(tmp_path: Path) -> None:
    codes = [1, 1, 2, 2, 3, 4, 4, 4]
    grey_video(tmp_path / "videos" / "a.mp4", codes)
    assert ingest(tmp_path / "videos", out=tmp_path / "store", workers=1).num_frames == 4
    convert(tmp_path / "store", to="lerobot-v3", out=tmp_path / "set")
    source = source_class("lerobot")(tmp_path / "set")
    (unit,) = source.listing().units
    frames = list(source.frames(unit))
    assert [code_of(frame.pixels) for frame in frames] == codes
    np.testing.assert_allclose([frame.time_seconds for frame in frames], np.arange(8) / 10, atol=1e-6)
    with pytest.raises(InputError, match="is not empty"):
        convert(tmp_path / "store", to="lerobot-v3", out=tmp_path / "set")


def test_cameras_of_two_lengths_and_odd_sizes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for camera, length in (("long", 9), ("short", 6)):
            frames = np.stack([picture(number, 47, 63) for number in range(length)])
            file[f"data/demo_0/obs/{camera}_image"] = frames
    ingest(tmp_path / "a.hdf5", out=tmp_path / "store", workers=1, image_fps=30)
    convert(tmp_path / "store", to="lerobot-v3", out=tmp_path / "set")
    source = source_class("lerobot")(tmp_path / "set")
    units = source.listing().units
    assert [unit.labels["camera"] for unit in units] == ["long", "short"]
    for unit in units:
        frames = list(source.frames(unit))
        check(frames, list(range(6)), [number / 30 for number in range(6)])
        assert frames[0].pixels.shape == (47, 63, 3)


def test_single_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in (1, 20):
        (tmp_path / "images" / f"{'ab'[number % 2]}.jpg").write_bytes(jpeg(number))
    ingest(tmp_path / "images", out=tmp_path / "store", workers=1)
    with pytest.raises(InputError, match="holds single images"):
        convert(tmp_path / "store", to="lerobot-v3", out=tmp_path / "set")
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()
