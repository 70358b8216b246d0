"""The store as its readers see it, on the shipped clips and on a synthetic million frames."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from places import CLIPS

from robossl.cli.main import main
from robossl.data.describe import info
from robossl.data.index import IndexEntry, write_index
from robossl.data.ingest import ingest
from robossl.data.manifest import Manifest, SourceEntry, read_manifest, write_manifest
from robossl.data.pictures import encode_jpeg, shrink
from robossl.data.shards import BATCH_ROWS, ShardWriter, UnitRecord
from robossl.data.store import open_store
from robossl.errors import InputError


def test_rows_are_contiguous_runs_in_time_order(clip_store):
    store = clip_store
    assert store.num_episodes == 16 and store.num_frames == store.episode_start[-1] == len(store.time_seconds)
    assert store.episode_id.tolist() == sorted(store.episode_id)
    for start, stop in zip(store.episode_start, store.episode_start[1:], strict=False):
        assert store.time_seconds[start] == 0 and (np.diff(store.time_seconds[start:stop]) > 0).all()
    rows = np.array([0, store.num_frames - 1, store.episode_start[3], store.episode_start[3] - 1])
    assert store.episode_of(rows).tolist() == [0, 15, 3, 2]
    assert (store.frame_hw == (96, 171)).all()


def test_splits_and_labels(clip_store):
    train, val = clip_store.rows("train"), clip_store.rows("val")
    assert np.array_equal(np.sort(np.concatenate([train, val])), clip_store.rows(None))
    assert set(clip_store.episode_split[clip_store.episode_of(val)]) == {"val"}
    scenes = clip_store.labels("scene")
    assert scenes.shape == (16,) and set(scenes) == {
        "Kitchen",
        "Office",
        "Bathroom",
        "Living room",
        "Industrial office",
    }
    with pytest.raises(InputError, match="unknown label 'scen'; did you mean 'scene'"):
        clip_store.labels("scen")
    with pytest.raises(InputError, match=r"unknown split 'test'; .*choose from train, val"):
        clip_store.rows("test")


def test_a_store_without_splits_or_labels_says_what_to_do(tmp_path, capsys):
    shutil.copy(next(CLIPS.glob("**/*.mp4")), tmp_path / "clip.mp4")
    ingest((tmp_path / "clip.mp4",), out=tmp_path / "store", short_side=48, workers=1)
    store = open_store(tmp_path / "store")
    assert len(store.rows(None)) == store.num_frames
    with pytest.raises(InputError, match=r"has no splits, got 'train'; take all of it \(leave the split out;"):
        store.rows("train")
    with pytest.raises(InputError, match="has no labels, got 'scene'; ingest with --labels") as caught:
        store.labels("scene")
    assert store._repr_html_().count(f">{store.num_frames}<") == 1  # no second row that says the same
    (tmp_path / "labels.csv").write_text("path,scene\nclip.mp4,Kitchen\n")
    (advised,) = re.findall(r"robossl (ingest .*) CSV", str(caught.value))
    capsys.readouterr()
    assert main([*shlex.split(advised), str(tmp_path / "labels.csv")]) == 0
    assert "1 episode, 0 new" in capsys.readouterr().out
    assert open_store(tmp_path / "store").labels("scene").tolist() == ["Kitchen"]


def test_pixels_are_those_of_the_video(clip_store):
    """Every stored frame is its video frame, scaled, within JPEG's loss."""
    for episode in (0, 9):
        path = CLIPS / clip_store.episode_id[episode].split("/", 1)[1]
        with av.open(str(path)) as container:
            pictures = [
                frame.to_image().resize((171, 96), Image.Resampling.BILINEAR) for frame in container.decode(video=0)
            ]
        rows = range(clip_store.episode_start[episode], clip_store.episode_start[episode + 1])
        for picture, stored in zip(pictures, clip_store.decode(rows), strict=True):
            assert stored.shape == (3, 96, 171) and stored.stride(0) == 1  # channels last
            assert np.abs(stored.permute(1, 2, 0).numpy().astype(int) - np.asarray(picture)).mean() < 4


def test_pickles_as_its_path(clip_store):
    clip_store.decode([0])
    data = pickle.dumps(clip_store)
    assert len(data) < 5000
    again = pickle.loads(data)
    assert again.content_hash == clip_store.content_hash
    assert np.array_equal(again.jpeg(700), clip_store.jpeg(700))
    assert not again.jpeg(700).flags.owndata and not again.jpeg(700).flags.writeable  # the memory map itself


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a store"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema": "robossl.store/9"}', r"schema 'robossl.store/9', this version reads 'robossl.store/1'"),
        ('{"schema": "robossl.store/1"}', "is damaged"),
        (
            '{"schema": "robossl.store/1", "short_side": 9, "quality": 9, "sources": [], "label_names": []}',
            "is unfinished",
        ),
    ],
)
def test_what_is_no_store_gets_one_clear_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        open_store(tmp_path)
    assert "\n" not in str(caught.value)


def test_manifest_round_trip(clip_store_path, tmp_path):
    manifest = read_manifest(clip_store_path)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert json.loads((tmp_path / "manifest.json").read_text())["schema"] == "robossl.store/1"
    assert manifest.licences == ("CC BY 4.0",)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_resize_is_torchvisions_antialiased_one():
    import torch
    from torchvision.transforms.functional import resize

    pixels = np.random.default_rng(0).integers(0, 256, (180, 320, 3), np.uint8)
    ours = np.asarray(shrink(pixels, 96)).astype(int)
    reference = resize(torch.from_numpy(pixels).permute(2, 0, 1), [96, 171], antialias=True).permute(1, 2, 0).numpy()
    assert np.abs(ours - reference).max() <= 1
    assert shrink(pixels, 500).size == (320, 180)  # never enlarged


def test_info_prints_the_numbers(clip_store_path, capsys):
    info(clip_store_path)
    out = capsys.readouterr().out
    assert all(word in out for word in ("1483", "train", "val", "CC BY 4.0", "Kitchen 4", "scene"))


def write_synthetic(path: Path, num_episodes: int, frames_each: int, per_shard: int) -> None:
    """A store of one tiny picture, written by the store's own parts."""
    (path / "shards").mkdir(parents=True)
    jpeg = encode_jpeg(Image.new("RGB", (8, 8)), 50)
    entries = []
    for first in range(0, num_episodes, per_shard):
        with ShardWriter(path / "shards", f"s{first}", {}) as shard:
            for number in range(first, min(first + per_shard, num_episodes)):
                for frame in range(frames_each):
                    shard.append(jpeg, frame / 30, (8, 8), number - first, {})
                record = UnitRecord(
                    "s", f"{number:07d}", "x", "", (number - first) * frames_each, frames_each, hash=f"{number}"
                )
                entries.append(IndexEntry(record, f"s{first}", "train", {"scene": f"{number % 9}"}))
            shard.finish([entry.record for entry in entries[first:]])
    manifest = Manifest(8, 50, (SourceEntry("s", "/s", "mp4"),))
    write_manifest(path, write_index(path, replace(manifest), entries))


def test_rows_across_batches_and_shards(tmp_path):
    write_synthetic(tmp_path / "s", 40, 50, 17)
    store = open_store(tmp_path / "s")
    assert store.num_frames == 2000 > 7 * BATCH_ROWS
    assert np.allclose(store.time_seconds, np.tile(np.arange(50) / 30, 40))
    assert {len(store.jpeg(row)) for row in range(2000)} == {len(store.jpeg(0))}


PROBE = """
import resource, sys, time
import numpy, pyarrow
from robossl.data.store import open_store
from pathlib import Path
def resident_mib(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before, start = resident_mib(), time.monotonic()
store = open_store(Path(sys.argv[1]))
rows = store.rows("train")[::9973]
bytes_read = sum(len(store.jpeg(int(row))) for row in rows)
store.time_seconds[rows], store.frame_hw[rows], store.episode_of(rows)
print(store.num_frames, time.monotonic() - start, resident_mib() - before)
"""


@pytest.mark.parametrize(
    ("num_episodes", "frames_each"),
    [(5_000, 20), pytest.param(5_000, 200, marks=pytest.mark.slow), pytest.param(200_000, 5, marks=pytest.mark.slow)],
)
def test_opens_without_reading_it_all(tmp_path, num_episodes, frames_each):
    write_synthetic(tmp_path / "s", num_episodes, frames_each, max(1, num_episodes // 50))
    out = subprocess.run(
        [sys.executable, "-c", PROBE, tmp_path / "s"], check=True, capture_output=True, text=True
    ).stdout
    frames, seconds, mib = map(float, out.split())
    assert frames == num_episodes * frames_each
    assert seconds < 10 and mib < 200
