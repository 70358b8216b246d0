"""What is written: videos that are copied and not encoded anew, metadata that make episodes exist, the real lerobot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import robossl_envs.lerobot_v3 as lerobot_v3
from places import TESTS, kits_environment
from robossl_envs.collection.part import PartWriter, is_whole, part_of
from robossl_envs.lerobot_layout import Column, DatasetPart, Layout
from robossl_envs.lerobot_v3 import LeRobotWriter

from robossl.data.sources.lerobot import LeRobotSource
from robossl.errors import InputError

COLUMNS = (
    Column("observation.state", "float32", 2, ("x", "y")),
    Column("action", "int64"),
    Column("next.done", "bool"),
    Column("agent", "string"),
)
LAYOUT = Layout("observation.images.top", 32, 48, 10, COLUMNS, robot_type="a/B-v0", task="a/B-v0")


def frames_of(number: int, length: int) -> np.ndarray:
    frames = np.zeros((length, 32, 48, 3), np.uint8)
    frames[:] = 40 * number + np.arange(48)[None, None, :, None]
    frames[np.arange(length), 8:16, 2 * np.arange(length)] = 250
    return frames


def write_part(folder: Path, number: int, length: int) -> DatasetPart:
    writer = PartWriter(frames_per_s=10, height=32, width=48)
    for k, frame in enumerate(frames_of(number, length)):
        row = {"observation.state": [number, k], "action": k % 3, "next.done": k == length - 1, "agent": "me"}
        writer.add(frame, row)
    assert writer.finish(folder, number, COLUMNS) == length
    return part_of(folder, number)


@pytest.fixture
def parts(tmp_path: Path) -> list[DatasetPart]:
    folder = tmp_path / "parts"
    folder.mkdir()
    return [write_part(folder, number, length) for number, length in enumerate((7, 4, 9, 5))]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.dts is not None]


def everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_our_reader_reads_every_episode_beside_its_rows(parts: list[DatasetPart], tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path / "out", LAYOUT)
    writer.append(parts[:1])
    writer.append(parts[1:])
    assert (writer.num_episodes, writer.num_frames) == (4, 25)
    source = LeRobotSource(tmp_path / "out")
    listing = source.listing()
    assert (listing.notes, listing.skipped) == ((), ())
    assert listing.columns == {"state": 2, "action": 1, "next.done": 1}
    for number in (2, 0, 3, 1):
        frames = list(source.frames(listing.units[number]))
        assert [frame.time_seconds for frame in frames] == pytest.approx(np.arange(len(frames)) / 10)
        assert [frame.columns["state"].tolist() for frame in frames] == [[number, k] for k in range(len(frames))]
        for frame, drawn in zip(frames, frames_of(number, len(frames)), strict=True):
            assert np.abs(frame.pixels.astype(int) - drawn).mean() < 4


def test_videos_are_copied_packet_by_packet(parts: list[DatasetPart], tmp_path: Path) -> None:
    LeRobotWriter(tmp_path / "out", LAYOUT).append(parts)
    joined = tmp_path / "out/videos/observation.images.top/chunk-000/file-000.mp4"
    assert packets(joined) == [packet for part in parts for packet in packets(part.video)]
    with av.open(str(joined)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 10, 25)
        assert stream.codec_context.pix_fmt == "yuv420p"
        found = list(container.decode(video=0))
    assert [frame.time for frame in found] == pytest.approx(np.arange(25) / 10)
    keys = [frame.key_frame for frame in found]
    assert all(a or b for a, b in pairwise(keys))  # a GOP of 2


def test_metadata_is_what_lerobot_looks_for(parts: list[DatasetPart], tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path / "out", LAYOUT)
    writer.append(parts[:2])
    writer.append(parts[2:])
    meta = tmp_path / "out" / "meta"
    info = json.loads((meta / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 10, 4, 25)
    assert info["splits"] == {"train": "0:4"}
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    assert info["features"]["observation.images.top"]["info"]["video.codec"] == "h264"
    rows = [row for path in sorted(meta.glob("episodes/*/*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert [row["length"] for row in rows] == [7, 4, 9, 5]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [
        (0, 7),
        (7, 11),
        (11, 20),
        (20, 25),
    ]
    video = "videos/observation.images.top"
    assert [row[f"{video}/file_index"] for row in rows] == [0, 0, 1, 1]
    assert [row[f"{video}/from_timestamp"] for row in rows] == pytest.approx([0, 0.7, 0, 0.9])
    assert [row[f"{video}/to_timestamp"] for row in rows] == pytest.approx([0.7, 1.1, 0.9, 1.4])
    tasks = pq.read_table(meta / "tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    data = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "out").glob("data/*/*.parquet")))
    assert data["index"].to_pylist() == list(range(25))
    assert data["frame_index"].to_pylist() == [k for length in (7, 4, 9, 5) for k in range(length)]
    assert pq.ParquetFile(tmp_path / "out/data/chunk-000/file-001.parquet").num_row_groups == 2


def test_statistics_are_those_of_all_frames(parts: list[DatasetPart], tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path / "out", LAYOUT)
    writer.append(parts[:3])
    LeRobotWriter(tmp_path / "out", LAYOUT).append(parts[3:])  # opened again: joined from the metadata
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    states = np.array([[number, k] for number, length in enumerate((7, 4, 9, 5)) for k in range(length)], float)
    for name in ("min", "max", "mean", "std"):
        assert stats["observation.state"][name] == pytest.approx(getattr(states, name)(axis=0)), name
    assert stats["observation.state"]["count"] == stats["next.done"]["count"] == [25]
    assert stats["next.done"]["mean"] == pytest.approx([4 / 25])
    assert "agent" not in stats
    pixels = stats["observation.images.top"]
    assert np.shape(pixels["mean"]) == (3, 1, 1) and 0 <= pixels["min"][0][0][0] < pixels["max"][0][0][0] <= 1
    seen = (
        np.concatenate([frames_of(number, length)[::10, ::2, ::2] for number, length in enumerate((7, 4, 9, 5))]) / 255
    )
    assert pixels["count"] == [len(seen)]
    assert np.ravel(pixels["mean"]) == pytest.approx(seen.mean(axis=(0, 1, 2)))
    assert np.ravel(pixels["std"]) == pytest.approx(seen.std(axis=(0, 1, 2)))


DIES = """
import os, shutil, signal, sys
from pathlib import Path
from test_lerobot_v3 import LAYOUT, LeRobotWriter, part_of
root, parts, moment = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
writer, replace, calls = LeRobotWriter(root, LAYOUT), os.replace, []
def die(source, target):
    calls.append(target)
    if len(calls) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = die
writer.append([part_of(parts, 2), part_of(parts, 3)])
"""


@pytest.mark.parametrize("moment", range(1, 6))
def test_killed_at_any_file_it_leaves_what_was_there(moment: int, parts: list[DatasetPart], tmp_path: Path) -> None:
    """Video, data, episodes, statistics, info: killed when one is written aside and has no name yet."""
    LeRobotWriter(tmp_path / "straight", LAYOUT).append(parts[:2])
    shutil.copytree(tmp_path / "straight", tmp_path / "died")
    argv = [sys.executable, "-c", DIES, str(tmp_path / "died"), str(tmp_path / "parts"), str(moment)]
    environment = kits_environment()
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    assert subprocess.run(argv, timeout=120, env=environment).returncode == -signal.SIGKILL
    listing = LeRobotSource(tmp_path / "died").listing()
    assert len(listing.units) == (2 if moment < 4 else 4) and not listing.skipped
    assert all(list(LeRobotSource(tmp_path / "died").frames(unit)) for unit in listing.units)
    assert list((tmp_path / "died").rglob("*.tmp"))
    again = LeRobotWriter(tmp_path / "died", LAYOUT)
    if again.num_episodes == 2:
        again.append(parts[2:])
    LeRobotWriter(tmp_path / "straight", LAYOUT).append(parts[2:])
    assert everything(tmp_path / "died") == everything(tmp_path / "straight")


def test_folders_are_full_at_a_thousand_files(
    parts: list[DatasetPart], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_v3, "CHUNK", 2)
    writer = LeRobotWriter(tmp_path / "out", LAYOUT)
    for part in parts[:3]:
        writer.append([part])
    assert (tmp_path / "out/data/chunk-001/file-000.parquet").exists()
    assert LeRobotWriter(tmp_path / "out", LAYOUT).num_frames == 20
    source = LeRobotSource(tmp_path / "out")
    assert [len(list(source.frames(unit))) for unit in source.listing().units] == [7, 4, 9]


def test_another_layout_is_refused(parts: list[DatasetPart], tmp_path: Path) -> None:
    LeRobotWriter(tmp_path / "out", LAYOUT).append(parts)
    other = Layout("observation.images.top", 32, 48, 10, COLUMNS[1:], robot_type="a/B-v0", task="a/B-v0")
    with pytest.raises(InputError, match="has different features than this environment has now; choose another --out"):
        LeRobotWriter(tmp_path / "out", other)


@pytest.mark.parametrize(
    ("name", "left", "remedy"),
    [
        ("meta/info.json", b'{"features": ', "remove it and run the same command again"),
        ("meta/info.json", b"{}", "remove it and run the same command again"),
        ("meta/episodes/chunk-000/file-000.parquet", b"", "choose another --out"),
    ],
)
def test_a_damaged_data_set_is_said_in_one_line(
    name: str, left: bytes, remedy: str, parts: list[DatasetPart], tmp_path: Path
) -> None:
    LeRobotWriter(tmp_path / "out", LAYOUT).append(parts)
    whole = everything(tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(left)
    with pytest.raises(InputError, match=rf"{name} is damaged \(.*\); {remedy}") as caught:
        LeRobotWriter(tmp_path / "out", LAYOUT)
    assert "\n" not in str(caught.value)
    if "remove" in remedy:
        (tmp_path / "out" / name).unlink()
        LeRobotWriter(tmp_path / "out", LAYOUT)
        assert everything(tmp_path / "out") == whole


def test_broken_parts_are_found(parts: list[DatasetPart]) -> None:
    assert all(map(is_whole, parts))
    parts[0].video.write_bytes(parts[0].video.read_bytes()[:300])
    shutil.copy(parts[2].video, parts[1].video)
    parts[2].table.write_bytes(b"")
    parts[3].video.unlink()
    assert not any(map(is_whole, parts))


def test_the_real_lerobot_reads_the_same(tmp_path: Path) -> None:
    """Every frame within the codec's error of what the environment drew, every column equal."""
    python = os.environ.get("ROBOSSL_LEROBOT_PYTHON")
    if not python:
        pytest.skip("needs ROBOSSL_LEROBOT_PYTHON, a Python that has lerobot")
    from robossl_envs.collect import collect
    from robossl_envs.collection.environment import open_env, render_frame
    from robossl_envs.collection.settings import CollectionSettings, episode_generators

    settings = CollectionSettings("dots/Known-v0", "pink", image_size=64, seed=5, modules=("dots",))
    out = tmp_path / "out"
    collect(env=settings.env, agent="pink", episodes=5, out=out, workers=1, image_size=64, seed=5, module=("dots",))
    rows = pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("data/*/*.parquet"))).to_pydict()
    names = ("observation.state", "observation.environment_state", "action", "next.reward", "next.success", "nuisance")
    frames, env = [], open_env(settings)
    for action, number, k in zip(rows["action"], rows["episode_index"], rows["frame_index"], strict=True):
        if k == 0:
            env.reset(seed=episode_generators(settings, number)[0])
        frames.append(render_frame(env, 64, 64))
        env.step(np.float32(action))
    arrays = {name: np.array(rows[name]) for name in names}
    arrays["nuisance"] = arrays["nuisance"].reshape(-1)
    np.savez(tmp_path / "arrays.npz", frames=np.stack(frames), **arrays)
    script = TESTS / "kits" / "lerobot_oracle.py"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, script, out, tmp_path / "arrays.npz"],
        capture_output=True,
        text=True,
        timeout=300,
        env=clean | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["episodes"] == 5 and found["worst"] < 4
    assert found["stats"]["action"]["count"] == [len(frames)]
