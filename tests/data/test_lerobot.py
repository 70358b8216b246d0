"""LeRobotDataset v2.1 and v3.0: frames beside their rows, and the defects that real datasets have."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from places import G1

from robossl.data.ingest import ingest
from robossl.data.source import Damaged
from robossl.data.sources.lerobot import LeRobotSource
from robossl.data.store import open_store
from robossl.errors import InputError

CAMERA = "observation.images.cam_high"


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture
def g1(tmp_path):
    """A copy of the shipped G1 episodes to break."""
    return Path(shutil.copytree(G1, tmp_path / "g1"))


def edit(root: Path, **changes):
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    for key, value in changes.items():
        info[key] = value(info[key]) if callable(value) else value
    path.write_text(json.dumps(info))


def notes_of(root: Path) -> str:
    return " | ".join(f"{problem.path}: {problem.reason}" for problem in LeRobotSource(root).listing().notes)


def test_v21_frames_lie_beside_their_rows():
    source = LeRobotSource(G1)
    listing = source.listing()
    assert [unit.key for unit in listing.units] == ["episode_000000/cam_high", "episode_000001/cam_high"]
    assert [unit.split for unit in listing.units] == ["train", "val"]
    assert listing.units[0].labels["task"] == "Pick up the yellow bottle on the table."
    assert listing.columns == {"state": 26, "action": 26} and not listing.skipped
    rows = pq.read_table(G1 / "data/chunk-000/episode_000001.parquet").to_pydict()
    pictures = decode(G1 / f"videos/chunk-000/{CAMERA}/episode_000001.mp4")
    frames = list(source.frames(listing.units[1]))
    assert len(frames) == len(pictures) == len(rows["index"])
    for number, frame in enumerate(frames):
        assert np.array_equal(frame.pixels, pictures[number])
        assert frame.time_seconds == pytest.approx(rows["timestamp"][number], abs=1e-3)
        assert np.array_equal(frame.columns["action"], np.float32(rows["action"][number]))


def test_v21_store_columns(tmp_path):
    ingest([G1], out=tmp_path / "out", short_side=48, workers=1)
    store = open_store(tmp_path / "out")
    assert store.num_frames == 488 and store.labels("camera").tolist() == ["cam_high"] * 2
    expected = np.concatenate(
        [pq.read_table(path)["observation.state"].to_pylist() for path in sorted(G1.glob("data/*/*"))]
    )
    rows = np.random.default_rng(0).permutation(488)
    assert np.array_equal(store.column("state", rows), expected.astype(np.float32)[rows])
    with pytest.raises(InputError, match=r"column 'reward' is needed from g1; no source of"):
        store.column("reward", rows)


def write_v3(root: Path, codec: str, lengths: tuple[int, ...] = (12, 7, 9)) -> list[list[np.ndarray]]:
    """Three episodes, two cameras, one video file a camera and one data file for all."""
    camera = {"dtype": "video", "shape": [48, 64, 3], "info": {"video.codec": "av1"}}
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "total_episodes": len(lengths),
        "splits": {"train": "0:2", "val": "2:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.images.a": camera,
            "observation.images.b": camera,
            "state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
            "next.done": {"dtype": "bool", "shape": [1]},
        },
    }
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    episodes = []
    for i, n in enumerate(lengths):
        row = {"episode_index": i, "length": n, "tasks": [f"task {i}"], "stats/x": [0.0]}
        for place in ("data", "videos/observation.images.a", "videos/observation.images.b"):
            row |= {f"{place}/chunk_index": 0, f"{place}/file_index": 0, f"{place}/from_timestamp": starts[i] / 10}
        episodes.append(row)
    pq.write_table(pa.Table.from_pylist(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    rows = [
        {"episode_index": i, "frame_index": k, "timestamp": np.float32(k / 10), "index": starts[i] + k,
         "state": [float(i), float(k)], "next.done": k == n - 1}
        for i, n in enumerate(lengths) for k in range(n)
    ]  # fmt: skip
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "data/chunk-000/file-000.parquet")
    pictures = []
    for name, base in (("a", 0), ("b", 120)):
        frames = [np.full((48, 64, 3), base + 4 * k, np.uint8) for k in range(sum(lengths))]
        path = root / f"videos/observation.images.{name}/chunk-000/file-000.mp4"
        path.parent.mkdir(parents=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10, options={"g": "5"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        pictures.append(frames)
    return pictures


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_v3_episodes_are_cut_out_of_shared_files(tmp_path, codec):
    pictures = write_v3(tmp_path, codec)
    source = LeRobotSource(tmp_path)
    listing = source.listing()
    assert [unit.key for unit in listing.units] == [f"episode_{i:06d}/{name}" for i in range(3) for name in "ab"]
    assert [unit.split for unit in listing.units] == ["train"] * 4 + ["val"] * 2
    assert listing.columns == {"state": 2, "next.done": 1}
    wrong = [note.reason for note in listing.notes]
    assert wrong == (
        [] if codec == "libsvtav1" else [f"observation.images.{n} is h264, but the stated codec is av1" for n in "ab"]
    )
    for number in (4, 1, 2, 5, 0, 3):  # any order: the open video is sought again
        unit = listing.units[number]
        frames = list(source.frames(unit))
        start = [0, 12, 19][number // 2]
        assert len(frames) == unit.num_frames
        for place, frame in enumerate(frames):
            assert frame.time_seconds == pytest.approx(place / 10)
            assert frame.pixels.mean() == pytest.approx(pictures[number % 2][start + place].mean(), abs=1.6)
            assert frame.columns["state"].tolist() == [number // 2, place]
            assert frame.columns["next.done"].tolist() == [place == len(frames) - 1]


def test_v3_shared_data_matches_sequential_decoding(shared_data):
    root = shared_data("droid_lerobot_v3")
    source = LeRobotSource(root)
    units = source.listing().units
    pictures = decode(root / "videos/observation.images.exterior/chunk-000/file-000.mp4")
    starts = np.concatenate([[0], np.cumsum([unit.num_frames for unit in units[:28]])])
    for number in (27, 3, 14):
        for place, frame in enumerate(source.frames(units[number])):
            assert np.array_equal(frame.pixels, pictures[starts[number] + place])


def test_v21_with_image_columns(tmp_path):
    """Datasets recorded without video keep encoded images in the data files."""
    write_v3(tmp_path, "libx264")
    edit(tmp_path, features=lambda old: {"observation.images.a": {"dtype": "image", "shape": [48, 64, 3]}})
    table = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet")
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 48), (255, 0, 0)).save(path)
    pictures = [{"bytes": path.read_bytes() if k % 2 else None, "path": "red.png"} for k in range(table.num_rows)]
    pq.write_table(
        table.append_column("observation.images.a", pa.array(pictures)), tmp_path / "data/chunk-000/file-000.parquet"
    )
    source = LeRobotSource(tmp_path)
    unit = source.listing().units[1]
    frames = list(source.frames(unit))
    assert len(frames) == 7 and all(frame.pixels[5, 5].tolist() == [255, 0, 0] for frame in frames)


def test_missing_video_and_pointer_are_skipped(g1, tmp_path):
    (g1 / f"videos/chunk-000/{CAMERA}/episode_000000.mp4").unlink()
    manifest = ingest([g1], out=tmp_path / "out", short_side=48, workers=1).manifest
    (skipped,) = manifest.sources[0].skipped
    assert skipped.path.endswith("episode_000000.mp4") and skipped.reason == "episode 0: missing"
    assert open_store(tmp_path / "out").episode_id.tolist() == ["g1/episode_000001/cam_high"]
    (g1 / f"videos/chunk-000/{CAMERA}/episode_000000.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "Git-LFS pointer" in LeRobotSource(g1).listing().skipped[0].reason


def test_paths_under_another_folder_are_found_by_looking(g1):
    (g1 / "videos").rename(g1 / "video")
    assert "says videos/, but the files are in video/ (2 files)" in notes_of(g1)
    assert len(LeRobotSource(g1).listing().units) == 2


def test_a_missing_file_is_not_replaced_by_that_of_another_camera(tmp_path):
    write_v3(tmp_path, "libx264")
    (tmp_path / "videos/observation.images.a/chunk-000/file-000.mp4").unlink()
    listing = LeRobotSource(tmp_path).listing()
    assert {unit.labels["camera"] for unit in listing.units} == {"b"} and len(listing.skipped) == 3


def shape(features, name, **changes):
    return {**features, name: {**features[name], **changes}}


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, "observation.state: names are nested one list too deep"),
        ({"features": lambda f: shape(f, "action", names=["a"] * 28)}, "action: 28 names for 26 values"),
        ({"features": lambda f: shape(f, "action", shape=[30])}, "action has 30 values by its shape, 26 in data/"),
        (
            {"features": lambda f: shape(f, CAMERA, info={"video.codec": "av1"})},
            "cam_high is h264, but the stated codec is av1",
        ),
        ({"splits": {"train": "0:1"}}, "splits cover 1 of 2 episodes, not 1"),
        ({"splits": {"train": "0:50"}}, "split train covers 0:50, the last episode is 1"),
        ({"splits": {"train": "all"}}, "split train: 'all' is not understood"),
        ({"total_episodes": 3}, "says 3 episodes, 2 are listed"),
    ],
)
def test_noted_defects(g1, tmp_path, changes, note):
    edit(g1, **changes)
    assert note in notes_of(g1)
    assert len(LeRobotSource(g1).listing().units) == 2
    with pytest.raises(InputError, match="--strict"):
        ingest([g1], out=tmp_path / "out", strict=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, r"is LeRobotDataset v1\.6; supported are"),
        ({"video_path": "../{video_key}.mp4"}, "leaves the dataset"),
        ({"video_path": "{video_key.__class__}"}, "template that is not understood"),
        ({"data_path": "data/{episode_index:0999999999d}"}, "template that is not understood"),
        ({"features": lambda f: {"action": f["action"]}}, "names no camera"),
        ({"fps": None}, "unusable LeRobot metadata"),
    ],
)
def test_unusable_metadata_is_one_line(g1, tmp_path, changes, message):
    edit(g1, **changes)
    with pytest.raises(InputError, match=message) as caught:
        ingest([g1], out=tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_video_shorter_than_its_rows(g1):
    path = g1 / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 5)]), path)
    source = LeRobotSource(g1)
    with pytest.raises(Damaged, match="video has 221 frames for 226 rows"):
        list(source.frames(source.listing().units[0]))


def test_rows_whose_frame_is_missing_are_left_out(g1):
    rows = pq.read_table(g1 / "data/chunk-000/episode_000000.parquet").num_rows
    source = LeRobotSource(g1)
    unit = source.listing().units[0]
    states = [frame.columns["state"] for frame in source.frames(unit)]
    frames_per_s = int(unit.address["frames_per_s"])
    with av.open(str(g1 / str(unit.address["video"])), "w") as container:
        stream = container.add_stream("libx264", rate=frames_per_s, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in [*range(50), *range(52, rows)]:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, frames_per_s)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    read = list(LeRobotSource(g1).frames(unit))
    assert len(read) == rows - 2
    for number, frame in zip([*range(50), *range(52, rows)], read, strict=True):
        assert abs(frame.pixels.mean() - number) < 4
        assert np.array_equal(frame.columns["state"], states[number])


def test_v3_an_episode_ends_where_its_part_of_the_video_ends(tmp_path):
    write_v3(tmp_path, "libx264")
    path = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    episodes = pq.read_table(path)
    for camera, ends in (("a", [1.2, 1.9, 2.8]), ("b", [0.6, 1.9, 2.8])):
        episodes = episodes.append_column(f"videos/observation.images.{camera}/to_timestamp", pa.array(ends))
    pq.write_table(episodes, path)
    source = LeRobotSource(tmp_path)
    first, second, *rest = source.listing().units
    assert len(list(source.frames(first))) == 12
    with pytest.raises(Damaged, match="video has 6 frames for 12 rows"):
        list(source.frames(second))
    assert [len(list(source.frames(unit))) for unit in rest] == [7, 7, 9, 9]


def test_damaged_data_file_is_named(g1, tmp_path):
    (g1 / "data/chunk-000/episode_000000.parquet").write_bytes(b"PAR1 nothing")
    manifest = ingest([g1], out=tmp_path / "out", short_side=48, workers=1).manifest
    (skipped,) = manifest.sources[0].skipped
    assert skipped.path == "episode_000000/cam_high" and "cannot be read" in skipped.reason
    assert manifest.num_episodes == 1
