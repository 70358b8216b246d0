"""Every foreign format on real files: what is listed, what is read, what is refused and why."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from places import CLIPS, G1

from robossl.data.ingest import ingest
from robossl.data.sources import SOURCES, detect_format, source_class
from robossl.data.store import open_store
from robossl.errors import InputError


def write_video(path: Path, frames: list[np.ndarray], codec: str = "libx264", colorspace: int = 0, **options: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if colorspace:
            stream.codec_context.colorspace = colorspace
            stream.codec_context.color_range = 1
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=colorspace or None)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def flat(*rgb: int, h: int = 48, w: int = 64) -> np.ndarray:
    return np.broadcast_to(np.array(rgb, np.uint8), (h, w, 3)).copy()


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def read_all(root: Path, format: str, labels: Path | None = None):
    source = source_class(format)(root, labels)
    listing = source.listing()
    return listing, {unit.key: list(source.frames(unit)) for unit in listing.units}


SHARED = {
    "droid_web": "mp4",
    "droid_lerobot_v3": "lerobot",
    "g1_lerobot_v21": "lerobot",
    "imagenette_128": "parquet",
    "grocery_store": "tar",
    "scenes7_pose/rgb": "images",
}


@pytest.mark.parametrize(("name", "format"), SHARED.items())
def test_shared_data_is_detected_and_reads(name, format, shared_data):
    root = shared_data(name)
    assert detect_format(root) == format
    source = source_class(format)(root)
    units = source.listing().units
    assert [unit.key for unit in units] == sorted({unit.key for unit in units})
    for unit in (units[0], units[-1]):
        frame = next(iter(source.frames(unit)))
        assert frame.pixels.dtype == np.uint8 and frame.pixels.ndim == 3 and frame.time_seconds == 0.0
        assert frame.pixels.std() > 10


def test_shared_counts_and_labels(shared_data):
    grocery = source_class("tar")(shared_data("grocery_store")).listing().units
    assert len(grocery) == 4201 and {unit.split for unit in grocery} == {"train", "val", "test"}
    assert len({unit.labels["fine"] for unit in grocery}) == 81
    imagenette = source_class("parquet")(shared_data("imagenette_128")).listing().units
    assert [sum(unit.split == split for unit in imagenette) for split in ("train", "val")] == [9469, 3925]
    assert {"tench", "golf ball"} <= {unit.labels["label"] for unit in imagenette}


def test_mp4_folder_with_csv():
    listing, frames = read_all(CLIPS, "mp4")
    assert len(listing.units) == 16 and not listing.skipped and not listing.notes
    for unit in listing.units:
        assert len(frames[unit.key]) == unit.num_frames  # as the csv says
        assert frames[unit.key][-1].time_seconds == pytest.approx((unit.num_frames - 1) / 30)
        assert frames[unit.key][0].pixels.shape == (180, 320, 3)
    assert {unit.split for unit in listing.units} == {"train", "val"}


def test_one_video_file():
    path = next(CLIPS.glob("videos/*/*.mp4"))
    _, frames = read_all(path, detect_format(path))
    assert list(frames) == [path.name] and len(frames[path.name]) > 5


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1", "mpeg4"])
def test_codecs(tmp_path, codec):
    colours = [(200, 60, 30), (20, 200, 90), (40, 50, 220), (128, 128, 128)]
    write_video(tmp_path / "v.mp4", [flat(*rgb) for rgb in colours], codec)
    _, frames = read_all(tmp_path, "mp4")
    assert len(frames["v.mp4"]) == 4
    for frame, rgb in zip(frames["v.mp4"], colours, strict=True):
        assert abs(frame.pixels[24, 32].astype(int) - rgb).max() <= 12
    assert [frame.time_seconds for frame in frames["v.mp4"]] == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("colorspace", [0, 1, 5])  # not stated (read as BT.601), BT.709, BT.601
def test_colour_matrix_is_the_stated_one(tmp_path, colorspace):
    write_video(tmp_path / "v.mp4", [flat(200, 60, 30)] * 2, colorspace=colorspace)
    _, frames = read_all(tmp_path, "mp4")
    assert abs(frames["v.mp4"][0].pixels[24, 32].astype(int) - (200, 60, 30)).max() <= 3  # the wrong one is off by 10


def test_image_folder(tmp_path):
    sideways = flat(0, 0, 0, h=40, w=60)
    sideways[:, :30] = 255
    files = {
        "train/cup/a.jpg": jpeg(flat(200, 60, 30)),
        "train/cup/b.jpg": exif_jpeg(sideways),
        "valid/plate/c.png": png(Image.fromarray(flat(1, 2, 3)[..., 0])),
        "valid/plate/d.png": png(Image.fromarray(np.dstack([flat(9, 8, 7), np.full((48, 64), 255, np.uint8)]))),
        "valid/plate/deep.png": png(Image.fromarray(np.full((8, 8), 40000, np.uint16))),
        "valid/plate/broken.jpg": jpeg(flat(1, 1, 1))[:300],
        "valid/plate/empty.jpg": b"",
    }
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    manifest = ingest([tmp_path / "in"], out=tmp_path / "out", short_side=32, workers=1).manifest
    store = open_store(tmp_path / "out")
    assert store.episode_id.tolist() == [f"in/{name}" for name in list(files)[:4]]
    assert store.labels("label").tolist() == ["cup", "cup", "plate", "plate"]
    assert store.episode_split.tolist() == ["train", "train", "val", "val"]
    assert store.frame_hw.tolist() == [[32, 43], [48, 32], [32, 43], [32, 43]]
    upright = store.decode([1])[0].numpy()
    assert upright[:, 5].mean() > 200 and upright[:, -5].mean() < 50  # left half of the sideways picture is now on top
    reasons = {problem.path: problem.reason for problem in manifest.sources[0].skipped}
    assert set(reasons) == {"valid/plate/deep.png", "valid/plate/broken.jpg", "valid/plate/empty.jpg"}
    assert "8 bits" in reasons["valid/plate/deep.png"] and "runcated" in reasons["valid/plate/broken.jpg"]


def exif_jpeg(pixels: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    return jpeg(pixels, exif=exif.tobytes())


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(9_000, 9_000), (14_000, 14_000), (1, 40_000)])  # Pillow refuses the second itself
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, size):
    (tmp_path / "in").mkdir()
    Image.new("1", size).save(tmp_path / "in" / "bomb.png")  # some kB that would become 240 MB of RGB
    Image.fromarray(flat(1, 2, 3)).save(tmp_path / "in" / "good.png")
    manifest = ingest([tmp_path / "in"], out=tmp_path / "out", workers=1).manifest
    (skipped,) = manifest.sources[0].skipped
    assert skipped.path == "bomb.png" and "pixels" in skipped.reason


def parquet_table(colours: list[tuple[int, int, int] | None], labels: list[int]) -> pa.Table:
    images = [{"bytes": None if rgb is None else jpeg(flat(*rgb)), "path": None} for rgb in colours]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cup", "plate"]}}
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels), "note": ["x"] * len(labels)})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_parquet_of_images(tmp_path):
    colours = [(10 * i, 250 - 10 * i, 60) for i in range(20)]
    table = parquet_table([*colours, None], [i % 2 for i in range(21)])
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet", row_group_size=6)
    (tmp_path / "validation.parquet").write_bytes(b"PAR1 but not really")
    source = source_class("parquet")(tmp_path)
    listing = source.listing()
    assert [unit.labels for unit in listing.units[:2]] == [
        {"label": "cup", "note": "x"},
        {"label": "plate", "note": "x"},
    ]
    assert {unit.split for unit in listing.units} == {"train"}
    assert [problem.path for problem in listing.skipped] == ["validation.parquet"]
    for row in (0, 1, 7, 19, 3):  # forward over row groups, and back
        (frame,) = source.frames(listing.units[row])
        assert abs(frame.pixels[20, 20].astype(int) - colours[row]).max() <= 4
    with pytest.raises(Exception, match="no image bytes"):
        list(source.frames(listing.units[20]))


def write_tar(path: Path, members: dict[str, bytes | None]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if data is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            member.size = len(data or b"")
            tar.addfile(member, io.BytesIO(data or b""))


def test_tar_refuses_what_leaves_it(tmp_path):
    picture = jpeg(flat(200, 60, 30))
    members = {"train/cup/a.jpg": picture, "../up.jpg": picture, "/abs.jpg": picture, "link.jpg": None}
    write_tar(tmp_path / "i.tar", members | {"b.jpg": jpeg(flat(2, 2, 2)), "empty.jpg": b"", "notes.txt": b"x"})
    rows = ["path,split,kind", "train/cup/a.jpg,test,red", "gone.jpg,test,red", "../../etc/x.jpg,,"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    listing, frames = read_all(tmp_path, detect_format(tmp_path))
    assert [(unit.key, unit.split, unit.labels) for unit in listing.units] == [
        ("b.jpg", "", {}), ("train/cup/a.jpg", "test", {"label": "cup", "kind": "red"}),
    ]  # fmt: skip
    assert abs(frames["train/cup/a.jpg"][0].pixels[9, 9].astype(int) - (200, 60, 30)).max() <= 3
    reasons = {problem.path: problem.reason for problem in listing.skipped}
    assert reasons["i.tar:../up.jpg"] == reasons["i.tar:/abs.jpg"] == "path leaves the archive"
    assert "link" in reasons["i.tar:link.jpg"] and "empty" in reasons["i.tar:empty.jpg"]
    assert reasons["gone.jpg"] == "listed in the csv, but missing" and "leaves" in reasons["../../etc/x.jpg"]


def test_truncated_and_compressed_tars(tmp_path):
    picture = jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    write_tar(tmp_path / "i.tar", {f"{i}.jpg": picture for i in range(9)})
    data = (tmp_path / "i.tar").read_bytes()
    (tmp_path / "i.tar").write_bytes(data[: len(data) // 2])
    with tarfile.open(tmp_path / "j.tar.gz", "w:gz"):
        pass
    listing, _ = read_all(tmp_path, "tar")
    assert 0 < len(listing.units) < 9
    reasons = " ".join(f"{problem.path}: {problem.reason}" for problem in listing.skipped)
    assert ("breaks off" in reasons or "truncated" in reasons) and "j.tar.gz: compressed archive" in reasons


def test_damaged_videos_are_named_and_the_rest_is_stored(tmp_path):
    root = tmp_path / "in"
    clips = sorted(CLIPS.glob("videos/*/*.mp4"))
    data = clips[0].read_bytes()
    root.mkdir()
    (root / "good.mp4").write_bytes(data)
    (root / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    (root / "empty.mp4").write_bytes(b"")
    (root / "noise.mp4").write_bytes(os.urandom(5000))
    (root / "lfs.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    (root / "out.mp4").symlink_to(clips[1])
    (root / "folder").symlink_to(CLIPS)
    manifest = ingest([root], out=tmp_path / "out", short_side=64, workers=1).manifest
    assert open_store(tmp_path / "out").episode_id.tolist() == ["in/good.mp4"]
    reasons = {problem.path: problem.reason for problem in manifest.sources[0].skipped}
    assert reasons.keys() == {"cut.mp4", "empty.mp4", "noise.mp4", "lfs.mp4", "out.mp4", "folder"}
    assert "0 bytes" in reasons["empty.mp4"] and "Git-LFS" in reasons["lfs.mp4"] and "leaves" in reasons["out.mp4"]
    assert "opened" in reasons["noise.mp4"] and reasons["cut.mp4"]
    assert manifest.num_skipped == 6
    with pytest.raises(InputError, match=r"--strict: in: .*more"):
        ingest([root], out=tmp_path / "out", short_side=64, workers=1, strict=True)


def test_video_cut_behind_its_index_is_damaged(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(40)]
    write_video(tmp_path / "v.mp4", frames, movflags="faststart", g="5")
    (tmp_path / "w").mkdir()
    remux(tmp_path / "v.mp4", tmp_path / "w" / "fast.mp4")
    data = (tmp_path / "w" / "fast.mp4").read_bytes()
    (tmp_path / "w" / "fast.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"fast\.mp4: (truncated|corrupt|breaks off)"):
        ingest([tmp_path / "w"], out=tmp_path / "out", workers=1)


def remux(source: Path, target: Path) -> None:
    """Copy with the index in front, so that a cut file still opens."""
    with av.open(str(source)) as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds none of the formats .*images \(empty folder\?\)$"),
        (
            {"readme.txt": b"x"},
            "none of the formats .*images; name a source of your own with --format MODULE:ATTRIBUTE$",
        ),
        ({"a.mp4": b"x" * 99}, r"nothing could be read .*a\.mp4: cannot be opened as a video"),
        ({"a.png": jpeg(flat(1, 2, 3)), "l.csv": b"path,k\nb.png,1\n"}, r"none of the 1 files.*'b\.png'.*'a\.png'"),
        ({"a.png": b"x", "l.csv": b"path,k\n", "m.csv": b"path,k\n"}, r"2 csv files.*--labels"),
    ],
)
def test_bad_sources_get_one_clear_line(tmp_path, files, message):
    root = tmp_path / "in"
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        ingest([root], out=tmp_path / "out", workers=1)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_bad_choices(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        ingest([tmp_path / "gone"], out=tmp_path / "out")
    with pytest.raises(InputError, match="did you mean 'images'"):
        ingest([tmp_path], out=tmp_path / "out", format="image")
    (tmp_path / "l.csv").write_text("file,k\na,1\n")
    with pytest.raises(InputError, match="need a column 'path', got file, k"):
        ingest([CLIPS], out=tmp_path / "out", labels=tmp_path / "l.csv")
    for format in ("lerobot", "parquet"):
        with pytest.raises(InputError, match="--labels is for"):
            ingest([G1], out=tmp_path / "out", format=format, labels=tmp_path / "l.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (["a.jpg", "notes.csv.gz"], "images"),
        (["a.tar.gz", "a.txt"], "tar"),
        (["a.jpg", "sub/b.MP4"], "mp4"),
        (["a.jpg", ".hidden/b.mp4"], "images"),
        (["data/train-0.parquet", "a.jpg"], "parquet"),
    ],
)
def test_detection(tmp_path, names, format):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert detect_format(tmp_path) == format


def test_every_source_is_named_once():
    assert len(set(SOURCES.values())) == len(SOURCES)
