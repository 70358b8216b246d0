"""Messages of cameras and joints with burnt-in counters, and videos of them, for tests of bags."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
from counters import jpeg, picture
from PIL import Image

START = 1_700_000_000_000_000_000  # ns; log times begin here
LATE = 7_000_000  # ns from the time in a header to its log time
STEP = 100_000_000  # ns from frame to frame

HEADER = "std_msgs/Header header\n"
ENDING = (
    "=" * 80
    + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    + "=" * 80
    + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
)
DEFINITIONS = {
    "sensor_msgs/msg/Image": HEADER
    + "uint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data\n"
    + ENDING,
    "sensor_msgs/msg/CompressedImage": HEADER + "string format\nuint8[] data\n" + ENDING,
    "foxglove_msgs/msg/CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\n"
    + "string format\n"
    + ENDING,
    "sensor_msgs/msg/JointState": HEADER
    + "string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n"
    + ENDING,
    "std_msgs/msg/Float64MultiArray": "float64[] data\n",
    "std_msgs/msg/String": "string data\n",
}


def stamp(nanoseconds: int) -> dict[str, int]:
    return {"sec": nanoseconds // 10**9, "nanosec": nanoseconds % 10**9}


def header(nanoseconds: int) -> dict[str, Any]:
    return {"stamp": stamp(nanoseconds), "frame_id": "cam"}


def mosaic(pixels: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with this pattern of filters sees, such as rggb."""
    found = np.empty(pixels.shape[:2], np.uint8)
    for at, colour in enumerate(pattern):
        found[at // 2 :: 2, at % 2 :: 2] = pixels[at // 2 :: 2, at % 2 :: 2, "rgb".index(colour)]
    return found


def encode(number: int, encoding: str) -> np.ndarray:
    pixels = picture(number)
    if encoding.startswith("bayer_"):
        return mosaic(pixels, encoding[6:10])
    alpha = np.full((*pixels.shape[:2], 1), 7, np.uint8)
    match encoding:
        case "rgb8":
            return pixels
        case "bgr8":
            return pixels[:, :, ::-1]
        case "rgba8":
            return np.concatenate([pixels, alpha], 2)
        case "bgra8":
            return np.concatenate([pixels[:, :, ::-1], alpha], 2)
        case "yuv422_yuy2" | "yuv422":
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuyv422")
            pairs = np.frombuffer(bytes(frame.planes[0]), np.uint8).reshape(len(pixels), -1)[:, : 2 * pixels.shape[1]]
            return pairs if encoding == "yuv422_yuy2" else pairs.reshape(len(pixels), -1, 2)[:, :, ::-1]
        case _:
            return pixels.mean(2).astype(np.uint8 if encoding.startswith("mono8") else np.uint16)


def image(number: int, time: int, encoding: str = "rgb8", padding: int = 0) -> dict[str, Any]:
    """A sensor_msgs/Image; `padding` is the number of bytes after each row."""
    rows = np.ascontiguousarray(encode(number, encoding)).view(np.uint8).reshape(48, -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    fields: dict[str, Any] = {"header": header(time), "height": 48, "width": 64, "encoding": encoding}
    return fields | {"is_bigendian": 0, "step": data.shape[1], "data": data.tobytes()}


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number)).save(buffer, "PNG")
    return buffer.getvalue()


def compressed(number: int, time: int, format: str = "rgb8; jpeg compressed bgr8") -> dict[str, Any]:
    data = png(number) if "png" in format else jpeg(number)
    return {"header": header(time), "format": format, "data": data}


def joints(number: int, time: int, names: tuple[str, ...] = ("a", "b", "c")) -> dict[str, Any]:
    """Joint a is at 10 x number, b at 10 x number + 1, c at 10 x number + 2; no velocities."""
    position = [10.0 * number + "abc".index(name) for name in names]
    return {"header": header(time), "name": list(names), "position": position, "velocity": [], "effort": []}


def video(codec: str, numbers: range) -> list[bytes]:
    """A packet for each picture, without frames that need later ones; a key frame every 5 pictures."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 48, "yuv420p", Fraction(1, 10)
    quiet = {"x265-params": "log-level=none:keyint=5:bframes=0:repeat-headers=1"} if codec == "libx265" else {}
    context.options = {"crf": "18", "g": "5", "bf": "0", "tune": "zerolatency", **quiet}
    packets = []
    for at, number in enumerate(numbers):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts = at
        packets += context.encode(frame)
    return [bytes(packet) for packet in [*packets, *context.encode(None)]]
