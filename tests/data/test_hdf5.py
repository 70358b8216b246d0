"""HDF5 of robomimic and ALOHA, written by h5py: the right frames, times and columns, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from counters import check, jpeg, picture, read_all

from robossl.data.ingest import ingest
from robossl.data.sources import detect_format, source_class
from robossl.errors import InputError


def write_robomimic(path: Path, lengths: tuple[int, ...] = (5, 12), **storage: object) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for demo, length in enumerate(lengths):
            group = data.create_group(f"demo_{demo}")
            frames = np.stack([picture(10 * demo + number) for number in range(length)])
            group.create_dataset("obs/agentview_image", data=frames, **storage)
            group.create_dataset("obs/robot0_eye_in_hand_image", data=frames[::-1], **storage)
            group.create_dataset("obs/agentview_depth", data=np.zeros((length, 48, 64, 1), np.float32))
            group["obs/robot0_eef_pos"] = np.arange(length * 3.0).reshape(length, 3)
            group["actions"] = np.arange(length * 7.0).reshape(length, 7)
            group["states"], group["dones"] = np.ones((length, 4)), np.zeros(length, np.int64)
        file["mask/train"], file["mask/valid"] = np.array([b"demo_0"]), np.array([b"demo_1"])
    return path


@pytest.mark.parametrize("storage", [{}, {"chunks": (4, 48, 64, 3), "compression": "gzip"}, {"chunks": (1, 48, 64, 3)}])
def test_robomimic(tmp_path: Path, storage: dict[str, object]) -> None:
    path = write_robomimic(tmp_path / "low dim ü.hdf5", **storage)
    listing = source_class("hdf5")(path).listing()
    assert listing.columns == {"action": 7, "dones": 1, "robot0_eef_pos": 3, "state": 4} and not listing.skipped
    assert {(unit.split, unit.labels["task"]) for unit in listing.units} == {("train", "Lift"), ("val", "Lift")}
    found = read_all(path, "hdf5")
    stem = "low dim ü.hdf5/demo_"
    assert list(found) == [
        f"{stem}{demo:06d}/{camera}" for demo in (0, 1) for camera in ("agentview", "robot0_eye_in_hand")
    ]
    check(found[f"{stem}000001/agentview"], list(range(10, 22)), [number / 20 for number in range(12)])
    check(found[f"{stem}000000/robot0_eye_in_hand"], [4, 3, 2, 1, 0], [number / 20 for number in range(5)])
    np.testing.assert_array_equal(
        found[f"{stem}000001/agentview"][3].columns["action"], np.arange(21, 28, dtype=np.float32)
    )


def write_aloha(path: Path, form: str, length: int = 6) -> Path:
    with h5py.File(path, "w") as file:
        data = [jpeg(number) for number in range(length)]
        if form == "raw":
            file["observations/images/top"] = np.stack([picture(number) for number in range(length)])
        elif form == "padded":
            size = max(map(len, data)) + 9
            rows = [np.frombuffer(each.ljust(size, b"\0"), np.uint8) for each in data]
            file["observations/images/top"] = np.stack(rows)
            file["compress_len"] = np.array([[len(each) for each in data]])
        else:
            images = file.create_dataset("observations/images/top", (length,), h5py.vlen_dtype(np.uint8))
            for number, each in enumerate(data):
                images[number] = np.frombuffer(each, np.uint8)
        file["observations/qpos"], file["action"] = np.arange(length * 14.0).reshape(length, 14), np.ones((length, 14))
    return path


@pytest.mark.parametrize("form", ["raw", "padded", "ragged"])
def test_aloha(tmp_path: Path, form: str) -> None:
    write_aloha(tmp_path / "episode_0.hdf5", form)
    assert detect_format(tmp_path) == "hdf5"
    frames = read_all(tmp_path, "hdf5")["episode_0.hdf5/top"]
    check(frames, list(range(6)), [number / 50 for number in range(6)])
    np.testing.assert_array_equal(frames[2].columns["state"], np.arange(28, 42, dtype=np.float32))
    assert frames[2].columns["action"].shape == (14,)


def test_damage_is_named_and_the_rest_is_stored(tmp_path: Path) -> None:
    root = tmp_path / "demos"
    root.mkdir()
    whole = write_robomimic(root / "good.hdf5").read_bytes()
    (root / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    (root / "text.hdf5").write_text("hello")
    with h5py.File(root / "blind.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.ones((3, 7))
    with h5py.File(write_aloha(root / "short.hdf5", "raw"), "a") as file:
        del file["action"]
        file["action"] = np.ones((5, 7))
    store = ingest(root, out=tmp_path / "store", workers=1, image_fps=10)
    problems = {problem.path: problem.reason for source in store.manifest.sources for problem in source.skipped}
    assert "truncated file" in problems["cut.hdf5"] and "signature" in problems["text.hdf5"]
    assert "holds no camera" in problems["blind.hdf5"]
    assert problems["short.hdf5/top"] == "action has 5 rows for 6 frames; every array needs a row per frame"
    assert all(len(reason.splitlines()) == 1 for reason in problems.values())


def test_an_ingest_that_reads_nothing_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").write_bytes(write_robomimic(tmp_path / "b.h5").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"nothing could be read from .*a.hdf5: cannot be read as HDF5 episodes"):
        ingest(tmp_path / "a.hdf5", out=tmp_path / "store", workers=1)
    assert not (tmp_path / "store").exists()


def test_without_the_reader_the_pip_line_is_given(tmp_path: Path) -> None:
    write_aloha(tmp_path / "episode_0.hdf5", "raw")
    program = (
        "import sys; sys.modules['h5py'] = None\nfrom pathlib import Path\n"
        "from robossl.data.sources import source_class\nsource_class('hdf5')(Path(sys.argv[1])).listing()"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("pip install 'robossl[hdf5]'")
