"""Embed: images and stores to files of features."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from robossl_client.card import EncoderCard
from safetensors import safe_open

from robossl.cli.main import main
from robossl.data.store import Store
from robossl.encoders.embed import embed
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.inference import load_encoder
from robossl.errors import InputError
from robossl.exporting.parity import natural_frames


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "arm"
    save_encoder(build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64))), folder / "encoder", extra={})
    return folder


@pytest.fixture
def images(tmp_path: Path) -> dict[str, np.ndarray]:
    folder = tmp_path / "images"
    folder.mkdir()
    sizes = {"a.png": (40, 60), "b.png": (40, 60), "c.png": (33, 20), "d.png": (40, 60)}
    frames = {name: natural_frames(1, hw, seed=i)[0] for i, (name, hw) in enumerate(sizes.items())}
    for name, pixels in frames.items():
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").touch()
    return {str(folder / name): pixels for name, pixels in frames.items()}


def test_images_of_any_sizes_keep_their_order(run: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.npz"
    outputs = ("pooled", "dense")
    embed(str(run), [Path(next(iter(images))).parent], out=out, outputs=outputs, batch_size=2)
    with np.load(out) as file:
        assert file["frames"].tolist() == list(images)
        assert EncoderCard.from_json(str(file["card"])).name == "arm"
        for i, pixels in enumerate(images.values()):
            wanted = load_encoder(run)(pixels[None])
            for name in outputs:
                np.testing.assert_allclose(file[name][i], wanted[name][0], rtol=1e-4, atol=1e-5)
    assert [each.name for each in out.parent.iterdir()] == ["x.npz"]


def test_a_split_of_a_store_to_safetensors(run: Path, clip_store: Store, tmp_path: Path) -> None:
    split = min(set(clip_store.episode_split), key=lambda name: len(clip_store.rows(name)))
    out = tmp_path / "x.safetensors"
    argv = ["embed", str(run), str(clip_store.path), "--out", str(out), "--split", split]
    assert main(argv) == 0
    rows = clip_store.rows(split)
    with safe_open(out, framework="np") as file:
        pooled, frames = file.get_tensor("pooled"), json.loads(file.metadata()["frames"])
    assert len(pooled) == len(frames) == len(rows)
    pixels = clip_store.decode(rows[-1:])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(pooled[-1], load_encoder(run)(pixels[None])["pooled"][0], rtol=1e-4, atol=1e-5)
    episode, _, seconds = frames[-1].rpartition("@")
    assert episode == clip_store.episode_id[clip_store.episode_of(rows[-1:])[0]]
    assert float(seconds) == pytest.approx(clip_store.time_seconds[rows[-1]], abs=1e-3)


def test_a_colleague_may_read_what_is_written(run: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    """By itself safetensors writes for the owner alone; a team shares runs, and a server runs as another user."""
    out = tmp_path / "new" / "x.safetensors"
    assert main(["embed", str(run), str(tmp_path / "images"), "--out", str(out)]) == 0
    plain = tmp_path / "plain"
    plain.touch()
    written = [path for path in (*run.rglob("*"), out) if path.is_file() and path.name != ".lock"]
    assert "encoder.safetensors" in {path.name for path in written}
    assert {path.name for path in written if path.stat().st_mode != plain.stat().st_mode} == set()


def test_what_cannot_be_embedded_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, broken, folder = tmp_path / "empty", tmp_path / "broken.png", tmp_path / "folder.npz"
    empty.mkdir()
    folder.mkdir()
    broken.write_bytes(b"no image")
    for arguments, message in [
        ([str(run), str(empty), "--out", "x.npz"], "holds no images, no videos"),
        ([str(run), str(broken), "--out", str(tmp_path / "x.npz")], "cannot read the image"),
        ([str(run), str(tmp_path / "absent.mp4"), "--out", str(tmp_path / "x.npz")], "absent.mp4 does not exist; pass"),
        (
            [str(run), str(empty), "--out", "x.csv"],
            "out must end in .npz or .safetensors, or be a folder without a suffix",
        ),
        ([str(run), str(empty), "--out", "x.npz", "--part", "1/2"], "part 1/2 needs a folder of parquet files as out"),
        ([str(run), str(empty), str(empty), "--out", "x"], "out x is a folder, which takes one store, got 2 sources"),
        ([str(run), str(empty), "--out", "x.npz", "--split", "val"], "needs a store"),
        ([str(empty), str(empty), "--out", "x.npz"], "is no encoder"),
        ([str(run), str(empty), "--out", "x.npz", "--device", "tpu"], "unknown device 'tpu'; choose cpu or cuda"),
        ([str(run), str(empty), "--out", "x.npz", "--device", "cuda:99"], "device is cuda:99, but torch finds"),
        ([str(run), str(empty), "--out", "x.npz", "--batch-size", "0"], "batch_size must be 1 or more, got 0"),
        ([str(run), str(empty), "--out", "x.npz", "--batch-size", "-3"], "batch_size must be 1 or more, got -3"),
        ([str(run), str(empty), "--out", str(folder)], "--out must be a file, got the folder"),
        ([str(run), str(empty), "--out", str(broken / "x.npz")], "choose another --out"),
    ]:
        assert main(["embed", *arguments]) == InputError.exit_code
        captured = capsys.readouterr().err
        assert captured.startswith("robossl: ")
        assert captured.count("\n") == 1
        assert message in captured
    assert not (tmp_path / "x.npz").exists()


def write_video(path: Path, frames: list[np.ndarray], codec: str = "libx264") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.MKV", "libx264"), ("v.avi", "mpeg4")])
def test_a_video_is_embedded_frame_by_frame(name: str, codec: str, run: Path, tmp_path: Path) -> None:
    write_video(tmp_path / name, list(natural_frames(7, (48, 64), seed=0)), codec)
    (tmp_path / "labels.csv").write_text("path,label\nanother.mp4,1\n")  # no matter here
    out = tmp_path / "x.npz"
    assert main(["embed", str(run), str(tmp_path / name), "--out", str(out), "--batch-size", "3"]) == 0
    with av.open(str(tmp_path / name)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with np.load(out) as file:
        assert file["frames"].tolist() == [f"{tmp_path / name}@{k / 10:.3f}" for k in range(7)]
        np.testing.assert_allclose(file["pooled"], load_encoder(run)(np.stack(frames))["pooled"], rtol=1e-3, atol=1e-4)


def test_a_mixed_folder_is_embedded_whole_and_the_rest_is_said(
    run: Path, images: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    write_video(folder / "bb.mp4", list(natural_frames(3, (48, 64), seed=0)))
    (folder / "table.csv").touch()
    Image.fromarray(natural_frames(1, (40, 60), seed=9)[0]).save(folder / "e.tiff")
    assert main(["embed", str(run), str(folder), "--out", str(tmp_path / "x.npz")]) == 0
    said = capsys.readouterr().out
    assert "reading 5 images and every frame of 1 videos" in said
    assert "2 files that are no images and no videos" in said and "1 .txt" in said and "1 .csv" in said
    with np.load(tmp_path / "x.npz") as file:
        names = [Path(name).name for name in file["frames"].tolist()]
    assert names == ["a.png", "b.png", "bb.mp4@0.000", "bb.mp4@0.100", "bb.mp4@0.200", "c.png", "d.png", "e.tiff"]


@pytest.mark.parametrize("content", [b"", b"no video", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_a_damaged_video_is_one_line(
    content: bytes, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    assert main(["embed", str(run), str(tmp_path / "v.mp4"), "--out", str(tmp_path / "x.npz")]) == InputError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("robossl: cannot read the video ") and said.count("\n") == 1
    assert not (tmp_path / "x.npz").exists()


def test_a_damaged_file_of_a_folder_is_skipped_and_named(
    run: Path, images: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "images", tmp_path / "x.npz"
    for name in ("b.png", "v.mp4"):
        (folder / name).write_bytes(b"no picture")
    assert main(["embed", str(run), str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for problem in (f"cannot read the image {folder / 'b.png'}", f"cannot read the video {folder / 'v.mp4'}"):
        assert f"skipped whole: {problem}" in said
    with np.load(out) as file:
        assert [Path(name).name for name in file["frames"].tolist()] == ["a.png", "c.png", "d.png"]


def test_a_folder_of_damaged_files_alone_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "v.mp4").write_bytes(b"no video")
    out = tmp_path / "x.npz"
    assert main(["embed", str(run), str(tmp_path / "damaged"), "--out", str(out)]) == InputError.exit_code
    assert capsys.readouterr().err.startswith("robossl: no frame could be read") and not out.exists()


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from robossl.encoders.embed import _save
from robossl.errors import ResourceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a longer write fails as on a full disk
try:
    _save(Path(sys.argv[1]), ["a"], {"pooled": np.ones((1, 100_000), np.float32)}, card="{}")
except ResourceError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
def test_a_full_disk_is_one_line(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    done = subprocess.run([sys.executable, "-c", FULL, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {out} (")
    assert done.stdout.count("\n") == 1
    assert "None" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_hidden_files_of_a_folder_are_left_out(run: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    folder = Path(next(iter(images))).parent
    (folder / "._a.mp4").write_bytes(b"a Mac's resource fork")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails/a.png").write_bytes(b"no picture")
    embed(str(run), [folder], out=tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        assert file["frames"].tolist() == list(images)
