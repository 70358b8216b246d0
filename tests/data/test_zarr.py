"""Replay buffers of Diffusion Policy and UMI, written by zarr: the right frames and columns, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from counters import check, picture, read_all

from robossl.data.ingest import ingest
from robossl.data.sources import detect_format, source_class
from robossl.errors import InputError

ENDS = (5, 17, 18)


def write_buffer(
    path: Path, zarr_format: int = 2, kind: type = np.uint8, ends: tuple[int, ...] = ENDS, chunk: int = 4
) -> Path:
    is_zip = path.name.endswith(".zip")
    store = zarr.storage.ZipStore(path, mode="w") if is_zip else zarr.storage.LocalStore(path)
    group = zarr.create_group(store, zarr_format=zarr_format)
    frames = np.stack([picture(number) for number in range(18)]).astype(kind)
    data = group.create_group("data")
    for name in ("camera0_rgb", "img"):
        data.create_array(name, data=frames if name == "img" else frames[::-1].copy(), chunks=(chunk, 48, 64, 3))
    data.create_array("action", data=np.arange(36, dtype=np.float32).reshape(18, 2))
    data.create_array("robot0_eef_pos", data=np.ones((18, 3)))
    group.create_group("meta").create_array("episode_ends", data=np.array(ends, np.int64))
    store.close()
    return path


@pytest.mark.parametrize("name", ["push t ü.zarr", "umi.zarr.zip"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_every_layout(tmp_path: Path, name: str, zarr_format: int, kind: type) -> None:
    path = write_buffer(tmp_path / name, zarr_format, kind)
    assert detect_format(path) == detect_format(tmp_path) == "zarr"
    assert source_class("zarr")(path).listing().columns == {"action": 2, "robot0_eef_pos": 3}
    found = read_all(tmp_path, "zarr")
    assert found.keys() == read_all(path, "zarr").keys() and len(found) == 6
    check(found[f"{name}/episode_000001/img"], list(range(5, 17)), [number / 10 for number in range(12)])
    check(found[f"{name}/episode_000000/camera0_rgb"], [17, 16, 15, 14, 13], [number / 10 for number in range(5)])
    np.testing.assert_array_equal(found[f"{name}/episode_000001/img"][2].columns["action"], [14, 15])


def test_damage_is_named_and_the_rest_is_stored(tmp_path: Path) -> None:
    root = tmp_path / "buffers"
    root.mkdir()
    whole = write_buffer(root / "good.zarr.zip").read_bytes()
    (root / "cut.zarr.zip").write_bytes(whole[: len(whole) // 2])
    write_buffer(root / "long.zarr", ends=(5, 99))
    write_buffer(root / "back.zarr", ends=(9, 5))
    write_buffer(root / "lost.zarr")
    (root / "lost.zarr" / "data" / "img" / "1.0.0.0").unlink()
    damaged = write_buffer(root / "noise.zarr") / "data" / "img" / "0.0.0.0"
    damaged.write_bytes(damaged.read_bytes()[:50])
    shutil.rmtree(write_buffer(root / "endless.zarr") / "meta")
    store = ingest(root, out=tmp_path / "store", workers=1, image_fps=30)
    problems = {problem.path: problem.reason for source in store.manifest.sources for problem in source.skipped}
    assert "not a zip file" in problems["cut.zarr.zip"] and "end at 99" in problems["long.zarr"]
    assert "increasing" in problems["back.zarr"] and "meta/episode_ends are needed" in problems["endless.zarr"]
    assert problems["lost.zarr/data/img"] == "1 of 5 chunks are missing"
    assert "cannot be read" in problems["noise.zarr/episode_000000/img"]
    assert all(len(reason.splitlines()) == 1 for reason in problems.values())


def test_an_ingest_that_reads_nothing_leaves_no_folder(tmp_path: Path) -> None:
    path = write_buffer(tmp_path / "cut.zarr.zip")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"nothing could be read from .*cut.zarr.zip: cannot be read as a replay"):
        ingest(path, out=tmp_path / "store", workers=1)
    assert not (tmp_path / "store").exists()
