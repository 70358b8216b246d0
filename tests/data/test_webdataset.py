"""WebDataset: pictures and clips with labels, damage, and stores that `robossl convert` writes and ingest reads."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from counters import check, jpeg, read, read_all
from lerobot_kit import code_of, grey_video, write_v3
from places import ROOT

from robossl.cli.main import main
from robossl.data.convert import convert
from robossl.data.ingest import ingest
from robossl.data.sources import detect_format, source_class
from robossl.data.store import Store
from robossl.errors import InputError


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """The layout of webdataset.TarWriter: the files of a key beside each other, no folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def describe(**about: object) -> bytes:
    return json.dumps(about).encode()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    root = tmp_path / "shards ü"
    for shard in range(2):
        samples = {
            f"{10 * shard + number:06d}": {
                "jpg": jpeg(10 * shard + number),
                "json": describe(scene="kitchen" if shard else "office", angle=0.25 * number, box=[1, 2]),
                "cls": str(number).encode(),
            }
            for number in range(3)
        }
        write_shard(root / f"lift-{('train', 'val')[shard]}-{shard:06d}.tar", samples)
    return root


def test_pictures_and_their_labels(shards: Path) -> None:
    assert detect_format(shards) == "webdataset"
    listing = source_class("webdataset")(shards).listing()
    found = read_all(shards, "webdataset")
    assert not listing.skipped and len(found) == 6 and "not labels: angle (fractions)" in listing.remarks[0]
    for unit in listing.units:
        shard, number = unit.key.split("/")
        (frame,) = found[unit.key]
        assert read(frame.pixels) == int(number.removesuffix(".jpg")) and unit.split == shard.split("-")[1]
        scene = "kitchen" if "val" in shard else "office"
        assert unit.labels == {"scene": scene, "label": str(read(frame.pixels) % 10)}
    one = source_class("webdataset")(shards / "lift-val-000001.tar").listing()
    assert [unit.key for unit in one.units] == [f"{number:06d}.jpg" for number in (10, 11, 12)]


def test_clips(tmp_path: Path) -> None:
    grey_video(tmp_path / "clip.mp4", range(3, 9))
    clip = {"mp4": (tmp_path / "clip.mp4").read_bytes(), "json": describe(task="lift")}
    root = write_shard(tmp_path / "shards" / "000.tar", {"a/7": clip}).parent
    assert detect_format(root) == "webdataset"
    (unit,) = source_class("webdataset")(root).listing().units
    frames = read_all(root, "webdataset")["a/7.mp4"]
    assert unit.labels == {"task": "lift"} and [code_of(frame.pixels) for frame in frames] == list(range(3, 9))
    np.testing.assert_allclose([frame.time_seconds for frame in frames], np.arange(6) / 10)


def test_several_cameras_and_repeated_keys(tmp_path: Path) -> None:
    samples = {"1": {"left.jpg": jpeg(1), "right.jpg": jpeg(2), "cls": b"4"}}
    path = write_shard(tmp_path / "shards" / "000.tar", samples)
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("1.left.jpg")
        member.size = len(jpeg(3))
        tar.addfile(member, io.BytesIO(jpeg(3)))
    assert {key: read(found[0].pixels) for key, found in read_all(path, "webdataset").items()} == {
        "1.left.jpg": 1,
        "1.right.jpg": 2,
    }
    assert "twice" in source_class("webdataset")(path).listing().skipped[0].reason


def test_tars_of_images_alone_are_read_as_before(tmp_path: Path) -> None:
    write_shard(tmp_path / "images" / "a.tar", {f"cup/{number}": {"jpg": jpeg(number)} for number in range(3)})
    assert detect_format(tmp_path / "images") == "tar"


def test_damage_is_named_and_the_rest_is_stored(shards: Path, tmp_path: Path) -> None:
    path = shards / "lift-train-000000.tar"
    path.write_bytes(path.read_bytes()[:8192])
    write_shard(
        shards / "odd-000002.tar",
        {
            "1": {"jpg": jpeg(1)[:600], "cls": b"1"},
            "2": {"jpg": jpeg(2), "json": b"{"},
            "3": {"jpg": b"", "cls": b"1"},
            "4": {"jpg": jpeg(4), "json": b"[1]"},
        },
    )
    (source,) = ingest(shards, out=tmp_path / "store", workers=1).manifest.sources
    problems = {problem.path: problem.reason for problem in source.skipped}
    assert any("breaks off" in problems[each] or "truncated" in problems[each] for each in problems if "train" in each)
    assert "damaged image" in problems["odd-000002.tar/1.jpg"]
    assert "its labels are left out" in problems["odd-000002.tar:2.json"]
    assert "empty file" in problems["odd-000002.tar:3.jpg"]
    assert "holds no object" in problems["odd-000002.tar:4.json"]
    assert all(len(reason.splitlines()) == 1 for reason in problems.values())


def check_equal(a: Store, b: Store) -> None:
    assert [each.split("/", 1)[1] for each in b.episode_id] == a.episode_id.tolist()
    for name in ("episode_start", "episode_split", "end_seconds", "time_seconds", "frame_hw"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in a.label_names:
        np.testing.assert_array_equal(a.labels(name), b.labels(name))
    for name in a.manifest.sources[0].columns:
        rows = np.arange(a.num_frames)
        np.testing.assert_array_equal(a.column(name, rows), b.column(name, rows))


def test_a_store_is_written_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robossl.data.convert.SHARD_FRAMES", 14)
    store = ingest(ROOT / "tests/data/rlds", out=tmp_path / "store", workers=1)
    assert main(["convert", str(tmp_path / "store"), "--to", "webdataset", "--out", str(tmp_path / "tars")]) == 0
    names = sorted(path.name for path in (tmp_path / "tars").glob("*.tar"))
    assert names[-1].startswith("val-") and len(names) > 3
    back = ingest(tmp_path / "tars", out=tmp_path / "back", workers=1)
    check_equal(store, back)
    with tarfile.open(tmp_path / "tars" / names[0]) as tar:
        first = tar.extractfile("000000_000000.jpg")
        assert first is not None and first.read() == store.jpeg(0).tobytes()
    listing = source_class("webdataset")(tmp_path / "tars").listing()
    unit = next(unit for unit in listing.units if unit.labels["camera"] == "image" and unit.split == "val")
    frames = list(source_class("webdataset")(tmp_path / "tars").frames(unit))
    episode = int(frames[0].columns["state"][0])
    check(frames, [16 * episode + n for n in range(len(frames))], [n / 10 for n in range(len(frames))])


def test_frames_that_ingest_dropped_keep_their_time(tmp_path: Path) -> None:
    grey_video(tmp_path / "videos" / "a.mp4", [1, 1, 2, 2, 3, 3, 3])
    store = ingest(tmp_path / "videos", out=tmp_path / "store", workers=1)
    convert(tmp_path / "store", to="webdataset", out=tmp_path / "tars")
    check_equal(store, ingest(tmp_path / "tars", out=tmp_path / "back", workers=1))


def test_a_conversion_goes_on_and_refuses_other_folders(tmp_path: Path) -> None:
    write_v3(tmp_path / "set", [4, 5])
    ingest(tmp_path / "set", out=tmp_path / "store", workers=1)
    convert(tmp_path / "store", to="webdataset", out=tmp_path / "tars")
    (path,) = (tmp_path / "tars").glob("*.tar")
    whole = path.read_bytes()
    path.unlink()
    (tmp_path / "tars" / "train-000000.tar.1.tmp").write_bytes(whole[:100])
    convert(tmp_path / "store", to="webdataset", out=tmp_path / "tars")
    assert path.read_bytes() == whole and not list((tmp_path / "tars").glob("*.tmp"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        convert(tmp_path / "store", to="webdataset", out=tmp_path / "other")
    with pytest.raises(InputError, match="not a store"):
        convert(tmp_path / "other", to="webdataset", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
