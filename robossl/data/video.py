"""Decode videos with PyAV, which ships ffmpeg and dav1d (h264, AV1, ...) and needs no system library."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.data.pictures import check_size
from robossl.data.source import Damaged
from robossl.data.video_damage import check_matroska, packet_check, strict_options

# Formats that FFmpeg may read; it detects them by content. Other formats, such as playlists, could open more files.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
# Seek to a time this much earlier than wanted. Containers seek by decode time, which is earlier than the display time
# if a video has B-frames.
SEEK_MARGIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """What the header of a video states; a number is 0 if the header does not state it."""

    codec: str
    frames_per_s: float
    num_frames: int  # number that the header states, else computed from the duration
    is_counted: bool  # whether num_frames is stated by the header
    duration_seconds: float
    end_seconds: float  # time of the end, counted as the times of frames are; the first frame may come after 0 s


class Video:
    """An open video. Its frames can be read once, or repeatedly if each read starts at a given time.

    Raises:
        Damaged: the file cannot be opened or holds no video, its codec is not supported, or its frames are too large,
            or are depth maps or similar instead of pictures.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container = av.open(str(path), metadata_errors="replace", options={"format_whitelist": FORMATS})
        except (av.FFmpegError, OSError, ValueError) as error:
            raise Damaged(f"cannot be opened as a video ({_words(error)})") from error
        if not self._container.streams.video:
            self.close()
            raise Damaged("holds no video stream")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self.close()
            raise Damaged("its codec is not supported")
        try:
            check_size(self._stream.codec_context.width, self._stream.codec_context.height)
            _check_pixels(self._stream.codec_context.format)
        except Damaged:
            self.close()
            raise
        # One thread is enough, because ingest runs one process per core.
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = strict_options(self._stream.codec_context.codec.canonical_name)
        self._check = packet_check(self._stream.codec_context)
        self._is_summed = "matroska" not in self._container.format.name

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels, as the header states them."""
        return self._stream.codec_context.height, self._stream.codec_context.width

    @property
    def header(self) -> VideoHeader:
        """The header of the video stream. If the stream does not state a value, the container's value is used."""
        stream, rate = self._stream, self._stream.average_rate
        # The container's duration includes sound. Matroska counts the duration from 0, not from the first frame.
        whole = (self._container.duration or 0) / av.time_base
        end = whole if len(self._container.streams) == 1 else 0.0
        start = (self._container.start_time or 0) / av.time_base
        duration = max(0.0, end - start)
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
            end = duration + float((stream.start_time or 0) * stream.time_base)
        rate_per_s = float(rate) if rate else 0.0
        return VideoHeader(
            codec=stream.codec_context.codec.canonical_name,
            frames_per_s=rate_per_s,
            num_frames=stream.frames or round((duration or max(0.0, whole - start)) * rate_per_s),
            is_counted=bool(stream.frames),
            duration_seconds=duration,
            end_seconds=end,
        )

    def frames(self, from_seconds: float = -math.inf) -> Iterator[tuple[float, UInt8[ndarray, "h w 3"]]]:
        """Yield (time in seconds in the file, upright RGB pixels) for each frame from a given time on.

        Raises:
            Damaged: a frame is corrupt, or the stream breaks off.
        """
        try:
            if not self._is_summed:
                check_matroska(self._path)
                self._is_summed = True
            if from_seconds > 0 and self._stream.time_base:
                self._container.seek(
                    int(max(0.0, from_seconds - SEEK_MARGIN_SECONDS) / self._stream.time_base), stream=self._stream
                )
            for number, frame in enumerate(self._decoded()):
                seconds = frame.time if frame.time is not None else number / (self.header.frames_per_s or 30.0)
                if seconds < from_seconds:
                    continue
                if frame.is_corrupt:
                    raise Damaged(f"corrupt frame at {seconds:.2f} s")
                check_size(frame.width, frame.height)
                yield seconds, _upright(frame)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise Damaged(f"breaks off while decoding ({_words(error)})") from error

    def packet_times(self) -> list[float]:
        """Return the sorted display times of all packets in seconds. After this, the video cannot be decoded."""
        base = float(self._stream.time_base or 1)
        try:
            packets = [packet for packet in self._container.demux(self._stream) if packet.size]
        except (av.FFmpegError, OSError, ValueError) as error:
            raise Damaged(f"breaks off while reading ({_words(error)})") from error
        times = [packet.dts if packet.pts is None else packet.pts for packet in packets if not packet.is_discard]
        return sorted(base * time for time in times if time is not None)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux(self._stream):
            if self._check is not None:
                self._check(packet)
            yield from packet.decode()


def read_header(path: Path) -> VideoHeader:
    """Return the header of a video file.

    Raises:
        Damaged: for the reasons that `Video` gives.
    """
    video = Video(path)
    try:
        return video.header
    finally:
        video.close()


def frame_times(path: Path) -> list[float]:
    """Return the times of all frames in seconds, in order, without decoding the frames.

    Raises:
        Damaged: for the reasons that `Video` gives, or because the file breaks off.
    """
    video = Video(path)
    try:
        return video.packet_times()
    finally:
        video.close()


def _check_pixels(format: av.VideoFormat | None) -> None:
    if format is not None and len(format.components) == 1 and (bits := format.components[0].bits) > 8:
        raise Damaged(f"one channel of {bits} bits, like a depth map; only pictures are read")


def _upright(frame: av.VideoFrame) -> UInt8[ndarray, "h w 3"]:
    # The conversion uses the colour matrix that the frame states, or BT.601 if it states none.
    pixels = frame.to_ndarray(format="rgb24")
    # PyAV's type stub declares side_data as motion vectors only.
    side_data: Any = frame.side_data
    shown = side_data.get("DISPLAYMATRIX")
    if shown is None:
        return pixels
    # `x_right` and `x_down` say how far one step along x of the stored frame goes to the right and down on the display.
    # `y_right` and `y_down` say the same about one step along y.
    x_right, x_down, _, y_right, y_down, *_ = np.frombuffer(bytes(shown), np.int32)
    right, down = x_right, y_down
    # Phones store some frames sideways and some mirrored.
    if abs(x_down) > abs(x_right):
        pixels, right, down = pixels.transpose(1, 0, 2), y_right, x_down
    return np.ascontiguousarray(pixels[:: 1 if down >= 0 else -1, :: 1 if right >= 0 else -1])


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
