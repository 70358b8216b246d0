"""Videos as phones, recorders and web pages make them: mirrored, without counts, with a long last frame, or hostile."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from robossl.data.ingest import ingest
from robossl.data.source import Damaged
from robossl.data.sources.mp4 import Mp4Source
from robossl.data.video import Video, read_header

CORNERS = np.zeros((48, 64, 3), np.uint8)  # red, green / blue, black
CORNERS[:24, :32, 0] = CORNERS[:24, 32:, 1] = CORNERS[24:, :32, 2] = 255


def write(
    path: Path, times_ms: list[int], pixels: np.ndarray = CORNERS, *, last_ms: int = 100, title: str = ""
) -> Path:
    """A video whose frames are shown at given times, each a little brighter than the one before."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        frames = [
            av.VideoFrame.from_ndarray(pixels // 2 + 4 * number, format="rgb24") for number in range(len(times_ms))
        ]
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 1000)
        packets = [packet for frame in (*frames, None) for packet in stream.encode(frame)]
        for number, (packet, begin) in enumerate(zip(packets, times_ms, strict=True)):
            packet.pts, packet.dts, packet.time_base = begin, number, Fraction(1, 1000)
            packet.duration = max(1, times_ms[number + 1] - begin) if number + 1 < len(times_ms) else last_ms
            container.mux(packet)
    return path


def corners(pixels: np.ndarray) -> str:
    """The strongest colour of each quarter, row by row."""
    height, width = pixels.shape[:2]
    quarters = [pixels[height * y // 4, width * x // 4].astype(int) for y in (1, 3) for x in (1, 3)]
    return "".join("rgb"[quarter.argmax()] if np.ptp(quarter) > 60 else "k" for quarter in quarters)


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [  # av_display_rotation_set's matrices, and mirrored ones; a step along x leads to (a, b), along y to (c, d)
        ((1, 0, 0, 1), "rgbk"),
        ((-1, 0, 0, -1), "kbgr"),
        ((0, 1, -1, 0), "brkg"),
        ((0, -1, 1, 0), "gkrb"),
        ((-1, 0, 0, 1), "grkb"),
        ((1, 0, 0, -1), "bkrg"),
        ((0, 1, 1, 0), "rbgk"),
        ((0, -1, -1, 0), "kgbr"),
    ],
)
def test_frames_stand_upright_whichever_way_they_are_stored(
    matrix: tuple[int, int, int, int], seen: str, tmp_path: Path
) -> None:
    data = write(tmp_path / "v.mp4", [0, 100]).read_bytes()
    a, b, c, d = (65536 * value for value in matrix)
    at = data.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    (tmp_path / "w.mp4").write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :])
    _, pixels = next(Video(tmp_path / "w.mp4").frames())
    assert corners(pixels) == seen
    assert pixels.shape[:2] == ((64, 48) if b else (48, 64))


def test_matroska_states_no_count_and_is_estimated_and_checked_by_its_duration(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (48, 64, 3), np.uint8)
    whole = write(tmp_path / "v.mkv", list(range(0, 4000, 100)), noise)
    header = read_header(whole)
    assert not header.is_counted and header.duration_seconds == pytest.approx(4.0, abs=0.2)
    (unit,) = Mp4Source(tmp_path).listing().units
    assert 30 <= unit.num_frames <= 50
    assert len(list(Mp4Source(tmp_path).frames(unit))) == 40
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(Damaged, match=r"truncated|breaks off|corrupt"):
        list(Mp4Source(tmp_path).frames(unit))


def test_a_last_frame_that_is_shown_for_long_is_no_truncation(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", list(range(0, 1000, 100)), last_ms=10_000)
    assert read_header(tmp_path / "v.mp4").duration_seconds > 9
    (unit,) = Mp4Source(tmp_path).listing().units
    assert len(list(Mp4Source(tmp_path).frames(unit))) == 10


def test_a_title_that_is_not_utf8_is_no_matter(tmp_path: Path) -> None:
    data = write(tmp_path / "v.mp4", [0, 100], title="caf#").read_bytes()
    assert b"caf#" in data
    (tmp_path / "v.mp4").write_bytes(data.replace(b"caf#", b"caf\xe9"))
    assert len(list(Video(tmp_path / "v.mp4").frames())) == 2


def test_one_video_of_an_unknown_codec_leaves_the_others(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    write(root / "a.mkv", [0, 100, 200])
    data = write(root / "b.mkv", [0, 100]).read_bytes()
    assert b"V_MPEG4/ISO/AVC" in data
    (root / "b.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    manifest = ingest((root,), out=tmp_path / "store", short_side=48, workers=1).manifest
    assert manifest.num_episodes == 1
    assert [problem.reason for problem in manifest.sources[0].skipped] == ["its codec is not supported"]


def test_a_playlist_does_not_open_other_files(tmp_path: Path) -> None:
    write(tmp_path / "other.mp4", [0, 100])
    (tmp_path / "v.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(Damaged, match="cannot be opened as a video"):
        Video(tmp_path / "v.mp4")


def test_times_that_go_backwards_are_damage(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    write(root / "good.mkv", [0, 100, 200])
    write(root / "v.mkv", [0, 300, 150, 400])
    manifest = ingest((root,), out=tmp_path / "store", short_side=48, workers=1).manifest
    assert [problem.path for problem in manifest.sources[0].skipped] == ["v.mkv"]
    assert "times go backwards" in manifest.sources[0].skipped[0].reason
