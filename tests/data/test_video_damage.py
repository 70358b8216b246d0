"""Damaged videos are refused in every codec that tells; whole videos are not, also those that start late."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from robossl.data.source import Damaged
from robossl.data.sources.mp4 import Mp4Source
from robossl.data.video import Video, read_header

NUM_COPIES = 24


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(30, 220, (16, 20, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)


def write(
    path: Path, codec: str, *, pix_fmt: str = "yuv420p", num_frames: int = 40, start_ms: int = 0, **options: str
) -> Path:
    """A picture that moves to the right, ten frames a second."""
    muxer = {name: options.pop(name) for name in ("movflags",) if name in options}
    with av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = 128, 160, pix_fmt
        stream.codec_context.time_base = Fraction(1, 10)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture(), 3 * number, 1), format="rgb24")
            frame.pts, frame.time_base = number + start_ms // 100, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path: Path) -> list[Any]:
    source = Mp4Source(path)
    return list(source.frames(source.listing().units[0]))


X265 = {"crf": "20", "x265-params": "log-level=none"}
WHOLE = {
    "h264.mp4": ("libx264", {"crf": "20", "g": "20", "bf": "2"}),
    "h264.mkv": ("libx264", {"crf": "20", "g": "20"}),
    "hevc.mkv": ("libx265", X265),
    "hevc.mp4": ("libx265", X265),
    "mjpeg.avi": ("mjpeg", {"qscale": "3", "pix_fmt": "yuvj420p"}),
    "mjpeg.mkv": ("mjpeg", {"qscale": "3", "pix_fmt": "yuvj420p"}),
    "mpeg4.avi": ("mpeg4", {"qscale": "3"}),
    "mpeg2.avi": ("mpeg2video", {"qscale": "3"}),
    "vp9.webm": ("libvpx-vp9", {"crf": "30", "b": "0"}),
    "vp9.mp4": ("libvpx-vp9", {"crf": "30", "b": "0"}),
    "vp9_444.webm": ("libvpx-vp9", {"crf": "30", "b": "0", "pix_fmt": "yuv444p"}),
    "vp8.mkv": ("libvpx", {"crf": "20", "b": "1M"}),
    "png.mov": ("png", {"pix_fmt": "rgb24"}),
    "ffv1.mkv": ("ffv1", {}),
}
# Refused or harmless copies of 24; 0 for a codec that has no check at all beyond the structure of its frames.
CAUGHT = {name: 24 if name.endswith(".mkv") or name.startswith(("vp9", "png")) else 20 for name in WHOLE}
CAUGHT |= {"hevc.mp4": 4, "vp9_444.webm": 23}


@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_refused_and_whole_videos_are_not(name: str, tmp_path: Path) -> None:
    codec, options = WHOLE[name]
    path = write(tmp_path / name, codec, **options)
    whole = read(path)
    assert len(whole) == 40
    data, rng = path.read_bytes(), np.random.default_rng(0)
    begin = data.find(b"mdat") + 300 if path.suffix in (".mp4", ".mov") else 1200
    caught = 0
    for number in range(NUM_COPIES):
        hurt, at = bytearray(data), int(rng.integers(begin, int(len(data) * 0.9)))
        hurt[at : at + 12] = rng.integers(0, 256, 12, np.uint8).tobytes()
        copy = tmp_path / f"{number}{path.suffix}"
        copy.write_bytes(hurt)
        try:
            got = read(copy)
        except Damaged:
            caught += 1
            continue
        pixels = zip(got, whole, strict=False)
        off = max((np.abs(a.pixels.astype(int) - b.pixels).mean() for a, b in pixels), default=99)
        caught += bool(len(got) == len(whole) and off < 4)
    assert caught >= CAUGHT[name], caught


def test_padding_that_cameras_leave_is_no_damage(tmp_path: Path) -> None:
    """Some put a few bytes between the last block of a JPEG and its end marker."""
    path = write(tmp_path / "v.avi", "mjpeg", pix_fmt="yuvj420p", num_frames=3)
    padded = tmp_path / "padded.avi"
    with av.open(str(path)) as old, av.open(str(padded), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                other = av.Packet(bytes(packet)[:-2] + bytes(4) + b"\xff\xd9")
                other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
                other.is_keyframe, other.stream = True, stream
                new.mux(other)
    assert len(read(padded)) == 3


def test_an_open_group_of_pictures_can_be_read_from_any_time(tmp_path: Path) -> None:
    """Its first frames refer to frames before it: after a seek they are left out, not damaged."""
    options = {"x265-params": "log-level=none:keyint=12:min-keyint=12:open-gop=1:bframes=4"}
    path = write(tmp_path / "v.mp4", "libx265", num_frames=60, **options)
    video = Video(path)
    for start in (0.0, 1.3, 2.6, 4.9, 0.7):
        times = [seconds for seconds, _ in video.frames(start)]
        assert times == pytest.approx(np.arange(round(10 * start), 60) / 10)


@pytest.mark.parametrize("start_ms", [0, 1000, 5000])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mkv", "libx264", {}),
        ("v.webm", "libvpx-vp9", {}),
        ("v.mp4", "libx264", {}),
        ("v.mov", "libx264", {}),
        ("fragmented.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov", "g": "10"}),
    ],
)
def test_a_first_frame_after_the_start_is_no_truncation(
    name: str, codec: str, options: dict[str, str], start_ms: int, tmp_path: Path
) -> None:
    path = write(tmp_path / name, codec, start_ms=start_ms, **options)
    frames = read(path)
    assert [frame.time_seconds for frame in frames] == pytest.approx(np.arange(40) / 10, abs=2e-3)
    assert read_header(path).num_frames == pytest.approx(40, abs=2)


@pytest.mark.parametrize("start_ms", [0, 1000])
def test_a_truncated_video_that_starts_late_is_refused(start_ms: int, tmp_path: Path) -> None:
    path = write(tmp_path / "v.webm", "libvpx-vp9", start_ms=start_ms, g="5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Damaged):
        read(path)
