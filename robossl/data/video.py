"""Videos through PyAV, which brings its own ffmpeg and dav1d: h264, AV1 and the rest with no system library."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.data.pictures import check_size
from robossl.data.source import Damaged

SEEK_MARGIN_SECONDS = 0.5  # containers seek by decode time, which lies before display time where there are B-frames


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """What the header says; zero where it does not."""

    codec: str
    frames_per_s: float
    num_frames: int
    duration_seconds: float


class Video:
    """An open video: one pass, or repeated reads from given times.

    Raises:
        Damaged: the file cannot be opened, holds no video, or its frames are too large.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._container = av.open(str(path))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise Damaged(f"cannot be opened as a video ({_words(error)})") from error
        if not self._container.streams.video:
            self.close()
            raise Damaged("holds no video stream")
        self._stream = self._container.streams.video[0]
        try:
            check_size(self._stream.codec_context.width, self._stream.codec_context.height)
        except Damaged:
            self.close()
            raise
        self._stream.codec_context.thread_count = 1  # ingest runs one process a core

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def header(self) -> VideoHeader:
        """What the container says about its video."""
        stream, rate = self._stream, self._stream.average_rate
        duration = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        rate_per_s = float(rate) if rate else 0.0
        return VideoHeader(
            codec=stream.codec_context.codec.canonical_name,
            frames_per_s=rate_per_s,
            num_frames=stream.frames or round(duration * rate_per_s),
            duration_seconds=duration,
        )

    def frames(self, from_seconds: float = -math.inf) -> Iterator[tuple[float, UInt8[ndarray, "h w 3"]]]:
        """Time in the file and upright RGB pixels of the frames from a time on.

        Raises:
            Damaged: a frame is corrupt, or the stream breaks off.
        """
        try:
            if from_seconds > 0 and self._stream.time_base:
                self._container.seek(
                    int(max(0.0, from_seconds - SEEK_MARGIN_SECONDS) / self._stream.time_base), stream=self._stream
                )
            for number, frame in enumerate(self._container.decode(self._stream)):
                seconds = frame.time if frame.time is not None else number / (self.header.frames_per_s or 30.0)
                if seconds < from_seconds:
                    continue
                if frame.is_corrupt:
                    raise Damaged(f"corrupt frame at {seconds:.2f} s")
                check_size(frame.width, frame.height)
                yield seconds, _upright(frame)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise Damaged(f"breaks off while decoding ({_words(error)})") from error


def probe(path: Path) -> VideoHeader:
    """Read the header only.

    Raises:
        Damaged: as `Video`.
    """
    video = Video(path)
    try:
        return video.header
    finally:
        video.close()


def _upright(frame: av.VideoFrame) -> UInt8[ndarray, "h w 3"]:
    pixels = frame.to_ndarray(format="rgb24")  # by the frame's own colour matrix; BT.601 where it states none
    turns = round(frame.rotation / 90) % 4  # phones store sideways frames and a rotation
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
