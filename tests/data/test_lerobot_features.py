"""Which features of a LeRobot data set are cameras and columns: depth in all its marks, columns that are no matrix."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_kit import CAMERA, write_v3

from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.source import Damaged
from robossl.data.sources.lerobot import LeRobotSource
from robossl.data.store import open_store
from robossl.errors import InputError

DEPTH = f"{CAMERA}_depth"
PLAIN = {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}


def add_camera(root: Path, feature: dict[str, Any]) -> None:
    """A second camera whose video is a copy of the first."""
    shutil.copytree(root / "videos" / CAMERA, root / "videos" / DEPTH)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row |= {name.replace(CAMERA, DEPTH): value for name, value in row.items() if name.startswith("videos/")}
    pq.write_table(pa.Table.from_pylist(rows), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][DEPTH] = feature
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("marks", "is_depth"),
    [
        ({"info": {"is_depth_map": True}}, True),
        ({"info": {"video.is_depth_map": True}}, True),
        ({"video_info": {"video.is_depth_map": True}}, True),
        ({"video_info": {"is_depth_map": "true"}}, True),
        ({"is_depth_map": True}, True),
        ({"shape": [48, 64, 1], "info": {"video.is_depth_map": False}}, True),
        ({"shape": [1, 48, 64], "names": ["channels", "height", "width"]}, True),
        ({"shape": [48, 64], "names": ["height", "width"]}, True),
        ({"info": {"video.channels": 1}}, True),
        ({"info": {"video.pix_fmt": "gray12le"}}, True),
        ({}, False),
        ({"info": {"is_depth_map": False, "video.is_depth_map": "false", "video.pix_fmt": "yuv420p"}}, False),
        ({"shape": [3, 48, 64], "names": ["channels", "height", "width"]}, False),
        ({"shape": [1, 64, 3]}, False),
    ],
)
def test_depth_is_left_out_however_it_is_marked(marks: dict[str, Any], is_depth: bool, tmp_path: Path) -> None:
    add_camera(write_v3(tmp_path, [3, 4]), PLAIN | marks)
    listing = LeRobotSource(tmp_path).listing()
    assert {unit.labels["camera"] for unit in listing.units} == ({"top"} if is_depth else {"top", "top_depth"})
    assert ["depth map" in note.reason for note in listing.notes] == [True] * is_depth


def test_depth_that_nothing_marks_is_refused_by_its_pixels(tmp_path: Path) -> None:
    add_camera(write_v3(tmp_path, [3, 4]), PLAIN)
    path = tmp_path / f"videos/{DEPTH}/chunk-000/file-000.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray12le"
        for number in range(7):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), 100 * number, np.uint16), format="gray16le")
            container.mux(stream.encode(frame.reformat(format="gray12le")))
        container.mux(stream.encode())
    source = LeRobotSource(tmp_path)
    read = {unit.key: unit for unit in source.listing().units}
    with pytest.raises(Damaged, match="one channel of 12 bits, like a depth map"):
        list(source.frames(read["episode_000000/top_depth"]))
    assert len(list(source.frames(read["episode_000000/top"]))) == 3


def test_depth_alone_is_one_line(tmp_path: Path) -> None:
    write_v3(tmp_path, [3])
    info = json.loads((tmp_path / "meta/info.json").read_text())
    info["features"][CAMERA]["info"] = {"is_depth_map": True}
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="names no camera"):
        LeRobotSource(tmp_path).listing()


FLOATS = pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("shape", "rows", "note"),
    [
        ([0], lambda n: [[]] * n, "target has no values in"),
        ([3], lambda n: [[1.0] * (1 + k % 3) for k in range(n)], "target has rows of 1 to 3 values in"),
        ([2], lambda n: [None] * n, "target is null in"),
        ([2], lambda n: [None] + [[1.0, 2.0]] * (n - 1), "target is null in 1 rows of"),
        ([2], lambda n: [[1.0, 2.0]] * 8 + [None] * 2 + [[1.0, 2.0]] * (n - 10), "target is null in 2 rows of"),
        ([2], lambda n: [[1.0, 2.0], []] * (n // 2), "target has rows of 0 to 2 values in"),
    ],
)
def test_a_column_that_is_no_matrix_costs_no_episode(
    shape: list[int], rows: Any, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = {"target": {"dtype": "float32", "shape": shape, "names": None}}
    write_v3(tmp_path / "in", [6, 6], features=features, columns=lambda n: {"target": pa.array(rows(n), FLOATS)})
    assert main(["ingest", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    store = open_store(tmp_path / "out")
    assert store.num_episodes == 2 and store.manifest.sources[0].columns["state"] == 2
    (said,) = [line for line in capsys.readouterr().out.splitlines() if note in line]
    values = rows(12)
    if "rows of" in note and "is null" in note:
        found = store.column("target", np.arange(12))
        assert np.isnan(found).any(axis=1).tolist() == [value is None for value in values]
        assert "stored as nan" in said
    else:
        assert "target" not in store.manifest.sources[0].columns and said.endswith("not read")


@pytest.mark.parametrize("wrong", [[], [1.0], [1.0, 2.0, 3.0]])
def test_one_wrong_row_costs_its_episode(wrong: list[float], tmp_path: Path) -> None:
    features = {"target": {"dtype": "float32", "shape": [2], "names": None}}
    rows = [[1.0, 2.0]] * 19 + [wrong]
    write_v3(tmp_path / "in", [10, 10], features=features, columns=lambda n: {"target": pa.array(rows, FLOATS)})
    manifest = ingest([tmp_path / "in"], out=tmp_path / "out", short_side=16, workers=1).manifest
    (skipped,) = manifest.sources[0].skipped
    assert skipped.path == "episode_000001/top" and "column target has rows of" in skipped.reason
    assert manifest.sources[0].columns == {"state": 2, "target": 2}


def test_lance_tables_are_refused_in_one_line_without_a_store(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", [4])
    shutil.rmtree(root / "data")
    (root / "data" / "frames.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(InputError, match=r"stored as Lance \(data/frames.lance\), .* pip install pylance"):
        ingest(root, out=tmp_path / "store", workers=1)
    assert not (tmp_path / "store").exists()
