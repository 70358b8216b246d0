"""Turn camera messages of ROS and Foxglove (Image, CompressedImage, CompressedVideo) into RGB frames.

Encodings: sensor_msgs/image_encodings.hpp; Foxglove: docs.foxglove.dev/docs/sdk/schemas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from numpy import ndarray

from robossl.data.pictures import check_size, decode_image
from robossl.data.source import Damaged
from robossl.data.sources.h264 import FrameNumbers
from robossl.data.video_damage import refuse_damage, strict_options

CAMERA_PACKAGES = ("sensor_msgs", "foxglove_msgs", "foxglove")
CAMERA_KINDS = ("Image", "RawImage", "CompressedImage", "CompressedVideo")
# Which channels of a raw picture are red, green and blue, and how many it has.
CHANNELS = {
    "rgb8": ((0, 1, 2), 3),
    "bgr8": ((2, 1, 0), 3),
    "rgba8": ((0, 1, 2), 4),
    "bgra8": ((2, 1, 0), 4),
    "mono8": ((0, 0, 0), 1),
    "8UC1": ((0, 0, 0), 1),
}
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUYV", "yuyv": "YUYV"}
DEPTH = ("16UC1", "32FC1", "mono16")
VIDEO_CODECS = {"h264": "h264", "h265": "hevc", "hevc": "hevc"}

_NAL = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)  # the start of a unit of H.264 or H.265, and its first byte
_MAGIC = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"RI": "webp"}


def is_camera_type(name: str) -> bool:
    """Return whether messages of this type are pictures, such as `sensor_msgs/msg/Image` or `foxglove.RawImage`."""
    parts = re.split(r"[/.]", name)
    return parts[0] in CAMERA_PACKAGES and parts[-1] in CAMERA_KINDS


def encoding_of(message: Any) -> str:
    """Return the encoding of a camera message, such as bgr8, jpeg or h264."""
    if hasattr(message, "encoding"):
        return str(message.encoding)
    stated = str(message.format)
    words = re.findall(r"\w+", stated.lower())
    if "compresseddepth" in words:
        return "compressedDepth"
    if depth := next((name for name in DEPTH if name.lower() in words), ""):
        return depth
    video = next((name for name in VIDEO_CODECS if name in words), "")
    return video or _MAGIC.get(bytes(message.data[:2]), "") or stated or "unknown"


def check_encoding(encoding: str) -> None:
    """Check that pictures of this encoding can be read.

    Raises:
        Damaged: they cannot; the message names the encoding and those that can be read.
    """
    if encoding in DEPTH or encoding == "compressedDepth":
        raise Damaged(f"encoding {encoding}: depth or 16 bits per pixel; only pictures of 8 bits per channel are read")
    known = (*CHANNELS, *BAYER, *YUV, *VIDEO_CODECS, *_MAGIC.values())
    if encoding not in known:
        raise Damaged(f"encoding {encoding!r} is not supported; {', '.join(known)} are read")


def to_pixels(message: Any) -> UInt8[ndarray, "h w 3"]:
    """Return the picture in an Image, or in a CompressedImage that holds a JPEG, PNG or WebP.

    Raises:
        Damaged: its encoding is not supported, its bytes are too few, or they are no image.
    """
    encoding = encoding_of(message)
    check_encoding(encoding)
    if not hasattr(message, "encoding"):
        return _decode_compressed(bytes(message.data))
    width, height = int(message.width), int(message.height)
    check_size(width, height)
    order, channels = CHANNELS.get(encoding, ((), 2 if encoding in YUV else 1))
    step, data = int(message.step) or width * channels, np.frombuffer(message.data, np.uint8)
    if step < width * channels or len(data) < step * (height - 1) + width * channels:
        raise Damaged(f"{len(data)} bytes and step {step} are too few for {width}x{height} pixels in {encoding}")
    if len(data) < step * height:  # the padding of the last row is left out
        data = np.pad(data, (0, step * height - len(data)))
    rows = data[: step * height].reshape(height, step)[:, : width * channels]
    if encoding in BAYER:
        return _convert(np.ascontiguousarray(rows), encoding)
    if encoding in YUV:
        if width % 2:
            raise Damaged(f"{width} pixels in a row; {encoding} needs an even number")
        if YUV[encoding] == "UYVY":
            rows = rows.reshape(height, -1, 2)[:, :, ::-1]
        return _convert(np.ascontiguousarray(rows.reshape(height, width, 2)), "yuyv422")
    pixels = rows.reshape(height, width, channels)
    if encoding == "rgb8":
        return pixels
    found = np.empty((height, width, 3), np.uint8)
    for colour, channel in enumerate(order):  # four times as fast as one index for all
        found[:, :, colour] = pixels[:, :, channel]
    return found


def _decode_compressed(data: bytes) -> UInt8[ndarray, "h w 3"]:
    """Decode a JPEG five times as fast as `decode_image`, to the same pixels; decode other images with that."""
    if data.startswith(b"\xff\xd8") and b"Exif" not in data[:64]:  # which may say that the picture lies on its side
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=True)
            check_size(width, height)
            if space in ("YCbCr", "Gray"):
                pixels: ndarray = simplejpeg.decode_jpeg(data, "RGB", strict=True)
                return pixels
        except ValueError as error:
            refuse_damage(error)
    return decode_image(data)


def _convert(pixels: ndarray, format: str) -> UInt8[ndarray, "h w 3"]:
    return av.VideoFrame.from_ndarray(pixels, format=format).to_ndarray(format="rgb24")


@dataclass(frozen=True, slots=True)
class CameraPicture:
    """A decoded picture and the times of its message, in nanoseconds."""

    pixels: UInt8[ndarray, "h w 3"]
    stamp: int  # time in the header; log time if that is 0
    log_time: int


class CameraDecoder:
    """Decodes the messages of one camera in their order. A message of a video needs those before it."""

    def __init__(self) -> None:
        self._context: av.VideoCodecContext | None = None
        self._encoding = ""
        self._head = b""  # parameter sets that came in a message of their own
        self._times: dict[int, tuple[int, int]] = {}  # times of the messages whose frame has not come yet
        self._number = 0
        self._frame_numbers = FrameNumbers()

    def decode(self, message: Any, log_time: int) -> Iterator[CameraPicture]:
        """Yield the pictures that are complete with this message.

        Raises:
            Damaged: the message cannot be decoded.
        """
        times = (stamp_of(message) or log_time, log_time)
        encoding = encoding_of(message)
        if encoding in VIDEO_CODECS:
            yield from self._decode_video(bytes(message.data), encoding, times)
        else:
            yield CameraPicture(to_pixels(message), *times)

    def finish(self) -> Iterator[CameraPicture]:
        """Yield the pictures that the video decoder still holds.

        Raises:
            Damaged: some messages gave no picture.
        """
        if self._context is not None:
            yield from self._pictures(None)
        if self._times:
            raise Damaged(f"{len(self._times)} messages of the {self._encoding} video gave no picture")

    def _decode_video(self, data: bytes, encoding: str, times: tuple[int, int]) -> Iterator[CameraPicture]:
        if encoding != self._encoding and self._encoding:
            raise Damaged(f"the encoding changes from {self._encoding} to {encoding}")
        self._encoding = encoding
        if self._context is None:
            if not starts_video(data, encoding):
                return  # before the first key frame, or parameter sets alone
            context = av.CodecContext.create(VIDEO_CODECS[encoding], "r")
            assert isinstance(context, av.VideoCodecContext)
            context.thread_count, context.options = 1, strict_options(VIDEO_CODECS[encoding])
            self._context = context
        if not _kinds(data, encoding) & _PICTURES[encoding]:
            self._head += data
            return
        if encoding == "h264":
            self._frame_numbers.check(self._head + data)
        packet = av.Packet(self._head + data)
        packet.pts = packet.dts = self._number
        self._head = b""
        self._times[self._number] = times
        self._number += 1
        yield from self._pictures(packet)

    def _pictures(self, packet: av.Packet[Any] | None) -> Iterator[CameraPicture]:
        assert self._context is not None
        try:
            frames = self._context.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            raise Damaged(f"corrupt {self._encoding} message ({error})") from error
        for frame in frames:
            if frame.is_corrupt or frame.pts not in self._times:
                raise Damaged(f"corrupt frame {frame.pts} of the {self._encoding} video; a message may be missing")
            check_size(frame.width, frame.height)
            yield CameraPicture(frame.to_ndarray(format="rgb24"), *self._times.pop(frame.pts))


# Kinds of units that hold a (slice of a) picture, and those that begin one which needs no earlier picture.
_PICTURES = {"h264": frozenset(range(1, 6)), "h265": frozenset(range(32)), "hevc": frozenset(range(32))}
_KEYS = {"h264": frozenset({5, 7}), "h265": frozenset({*range(16, 22), 33}), "hevc": frozenset({*range(16, 22), 33})}


def starts_video(data: bytes, encoding: str) -> bool:
    """Return whether a video can be decoded from this message on: it has a key frame or parameter sets."""
    return bool(_kinds(data, encoding) & _KEYS[encoding])


def _kinds(data: bytes, encoding: str) -> set[int]:
    return {byte[0] & 31 if encoding == "h264" else byte[0] >> 1 & 63 for byte in _NAL.findall(data)}


def stamp_of(message: Any) -> int:
    """Return the time in the header of a message in nanoseconds; 0 if it has no header or an empty one."""
    stamp = message.header.stamp if hasattr(message, "header") else getattr(message, "timestamp", None)
    if stamp is None:
        return 0
    seconds = next((getattr(stamp, name) for name in ("sec", "seconds", "secs") if hasattr(stamp, name)), 0)
    nanos = next((getattr(stamp, name) for name in ("nanosec", "nanos", "nsec", "nsecs") if hasattr(stamp, name)), 0)
    return int(seconds) * 10**9 + int(nanos)
