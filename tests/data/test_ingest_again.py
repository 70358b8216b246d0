"""A store that grows with a source that changes: files moved, gone, mended; names and columns that cannot be stored."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from places import CLIPS, G1
from runs_kit import config_for

from robossl.data.clips import check_clips, check_discrete
from robossl.data.ingest import ingest
from robossl.data.source import Damaged
from robossl.data.sources.lerobot import LeRobotSource
from robossl.data.sources.parquet import ParquetSource
from robossl.data.store import Store, open_store
from robossl.errors import InputError
from robossl.training.pretrain import pretrain
from robossl.views import ClipSpec


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    return path


def stored(root: Path, out: Path) -> Store:
    ingest((root,), out=out, short_side=32, workers=1)
    return open_store(out)


def test_a_file_that_was_moved_counts_where_it_is_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "in", tmp_path / "store"
    for number in range(4):
        picture(root / "train" / "cupp" / f"{number}.png", number)
    stored(root, out)
    (root / "train" / "cupp").rename(root / "train" / "mug")  # mended label
    (root / "val" / "mug").mkdir(parents=True)
    (root / "train" / "mug" / "2.png").rename(root / "val" / "mug" / "2.png")
    (root / "train" / "mug" / "3.png").unlink()
    picture(root / "train" / "mug" / "4.png", 4)
    store = stored(root, out)
    names = ("train/cupp/3", "train/mug/0", "train/mug/1", "train/mug/4", "val/mug/2")
    assert store.episode_id.tolist() == [f"in/{name}.png" for name in names]
    assert store.labels("label").tolist() == ["cupp", *["mug"] * 4]
    assert store.manifest.duplicate_episodes == 0
    assert "in: kept 1 stored episode that the source no longer has" in capsys.readouterr().out


def test_pictures_beside_videos_become_a_source_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "store"
    root.mkdir()
    shutil.copy(next(CLIPS.rglob("*.mp4")), root / "clip.mp4")
    picture(root / "shot.png", 0)
    stored(root, out)
    assert "1 images beside the videos are not read; ingest them with --format images" in capsys.readouterr().out
    for _ in range(2):
        manifest = ingest((root,), out=out, format="images", workers=1).manifest
    assert "no longer listed" not in capsys.readouterr().out
    assert [(source.name, source.format) for source in manifest.sources] == [("in", "mp4"), ("in-2", "images")]
    assert open_store(out).episode_id.tolist() == ["in/clip.mp4", "in-2/shot.png"]
    assert stored(root, out).num_episodes == 2 and "no longer listed" not in capsys.readouterr().out


def test_what_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    root, out = Path(shutil.copytree(G1, tmp_path / "g1")), tmp_path / "store"
    data = root / "data/chunk-000/episode_000000.parquet"
    whole, status = data.read_bytes(), data.stat()
    data.write_bytes(b"x" * len(whole))
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a disk that failed for a moment
    assert stored(root, out).num_episodes == 1
    data.write_bytes(whole)
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    store = stored(root, out)
    assert store.num_episodes == 2 and not store.manifest.num_skipped
    assert stored(root, tmp_path / "new").content_hash == store.content_hash


def test_a_column_that_is_nowhere_is_noted_and_left_out(tmp_path: Path) -> None:
    root = Path(shutil.copytree(G1, tmp_path / "g1"))
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.ghost"] = {"dtype": "float32", "shape": [3]}
    info["features"]["language"] = {"dtype": "language", "shape": [1]}
    (root / "meta/info.json").write_text(json.dumps(info))
    for path in root.glob("data/*/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("language", pa.array(["lift"] * len(table))), path)
    store = stored(root, tmp_path / "store")
    assert store.num_episodes == 2
    assert {"observation.ghost", "language"}.isdisjoint(store.manifest.sources[0].columns)
    notes = " ".join(note.reason for note in store.manifest.sources[0].notes)
    assert "observation.ghost is not a numeric column of" in notes and "language is not a numeric column of" in notes


def test_a_column_of_another_width_is_the_episode_s_damage(tmp_path: Path) -> None:
    root = Path(shutil.copytree(G1, tmp_path / "g1"))
    path = sorted(root.glob("data/*/*.parquet"))[1]
    table = pq.read_table(path)
    place = table.column_names.index("action")
    short = pa.array([row[:-1] for row in table["action"].to_pylist()])
    pq.write_table(table.set_column(place, "action", short), path)
    store = stored(root, tmp_path / "store")
    assert store.num_episodes == 1
    (problem,) = store.manifest.sources[0].skipped
    assert problem.reason.startswith("column action has ")
    ragged = pa.array([row[: 1 + number % 2] for number, row in enumerate(table["action"].to_pylist())])
    pq.write_table(table.set_column(place, "action", ragged), path)
    source = LeRobotSource(root)
    with pytest.raises(Damaged, match="column action has rows of"):
        list(source.frames(source.listing().units[1]))


def test_names_that_are_not_utf8_are_skipped_by_name(tmp_path: Path) -> None:
    root = tmp_path / "in"
    picture(root / "a.png", 0)
    shutil.copy(root / "a.png", os.fsencode(root) + b"/caf\xe9.png")
    picture(root / "empty.png", 1).write_bytes(b"")
    store = stored(root, tmp_path / "store")
    assert store.num_episodes == 1
    assert {problem.path: problem.reason for problem in store.manifest.sources[0].skipped} == {
        "caf\\xe9.png": "name is not UTF-8; rename it",
        "empty.png": "empty file (0 bytes)",
    }
    other = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.rename(other)
    with pytest.raises(InputError, match="name is not UTF-8"):
        stored(other, tmp_path / "other")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 0)
    os.mkfifo(tmp_path / "in" / "b.png")
    store = stored(tmp_path / "in", tmp_path / "store")
    assert [problem.reason for problem in store.manifest.sources[0].skipped] == ["not a regular file"]


def test_pictures_of_other_formats_are_not_opened(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 0)
    (tmp_path / "in" / "b.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    picture(tmp_path / "c.ppm", 1).rename(tmp_path / "in" / "c.png")
    store = stored(tmp_path / "in", tmp_path / "store")
    reasons = [problem.reason for problem in store.manifest.sources[0].skipped]
    assert len(reasons) == 2 and all("cannot identify image file" in each for each in reasons)


def test_text_of_any_arrow_type_is_a_label(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 0)
    image = (tmp_path / "a.png").read_bytes()
    table = pa.table(
        {
            "image": [{"bytes": image, "path": "a"}, {"bytes": image, "path": "b"}],
            "image.bytes": [1, 2],
            "room": pa.array(["hall", "attic"], pa.large_string()),
            "kind": pa.array(["cup", "cup"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    units = ParquetSource(tmp_path / "t.parquet").listing().units
    assert [unit.labels for unit in units] == [
        {"image.bytes": "1", "room": "hall", "kind": "cup"},
        {"image.bytes": "2", "room": "attic", "kind": "cup"},
    ]


def test_clips_with_a_column_that_some_episodes_lack_are_refused_before_training(tmp_path: Path) -> None:
    clips = CLIPS
    video = next(clips.glob("**/*.mp4"))
    ingest((G1, video), out=tmp_path / "store", short_side=32, workers=1)
    store = open_store(tmp_path / "store")
    with_action = np.flatnonzero(store.episode_of(store.rows(None)) < 2)
    check_clips(store, with_action, [ClipSpec(num_frames=2, stride_seconds=0.1, columns=("action",))])
    with pytest.raises(InputError, match="column 'action' is needed from"):
        check_clips(store, store.rows(None), [ClipSpec(num_frames=2, stride_seconds=0.1, columns=("action",))])


def test_a_column_s_width_is_that_of_the_rows_asked_for(tmp_path: Path) -> None:
    other = Path(shutil.copytree(G1, tmp_path / "other"))
    for path in other.glob("data/*/*.parquet"):
        table = pq.read_table(path)
        narrow = pa.array([row[:3] for row in table["action"].to_pylist()])
        pq.write_table(table.set_column(table.column_names.index("action"), "action", narrow), path)
    ingest((G1, other), out=tmp_path / "store", short_side=32, workers=1)
    store = open_store(tmp_path / "store")
    mine = np.flatnonzero(store.episode_of(store.rows(None)) >= 2)
    assert store.column("action", mine[:4]).shape == (4, 3)


def test_discrete_columns_are_checked_before_training(tmp_path: Path) -> None:
    root = Path(shutil.copytree(G1, tmp_path / "g1"))
    for path in root.glob("data/*/*.parquet"):
        table = pq.read_table(path)
        tool = pa.array([[float(row % 3)] for row in range(len(table))])
        pq.write_table(table.set_column(table.column_names.index("action"), "action", tool), path)
    ingest((root,), out=tmp_path / "store", short_side=32, workers=1)
    store = open_store(tmp_path / "store")
    check_discrete(store, store.rows(None), {"action": 3})
    with pytest.raises(InputError, match=r"must hold whole numbers from 0 to 1, it has 0 to 2; set method\.discrete"):
        check_discrete(store, store.rows(None)[:1], {"action": 2})  # all frames of its episode
    with pytest.raises(InputError, match=r"'state' must be one number a frame, it is 26 wide; put it under"):
        check_discrete(store, store.rows(None), {"state": 3})
    config = config_for("cpc", tmp_path / "store")
    config = replace(config, method=replace(config.method, discrete_columns={"action": 2}))
    with pytest.raises(InputError, match="discrete column 'action' must hold whole numbers from 0 to 1"):
        pretrain(config, out=tmp_path / "run")


def test_images_beside_videos_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    picture(root / "b.png", 0)
    picture(root / "a.png", 1)
    shutil.copy(next((CLIPS).glob("**/*.mp4")), root / "preview.mp4")
    assert stored(root, tmp_path / "store").num_episodes == 1
    assert "noted in/a.png: 2 images beside the videos are not read; ingest them with --format images" in (
        capsys.readouterr().out
    )
