"""Frames of a moving camera with its poses, read from a folder in the text layout of the TUM RGB-D benchmark.

A line of `rgb.txt` has a time and a file. A line of `groundtruth.txt` has a time, a position in metres and a quaternion
(x, y, z, w), from camera to world. The sequence is cut into pieces of half a second. Each piece is a cluster (a unit
that counts as independent), and its last tenth of a second is left out. Neighbouring pieces still look alike. Therefore
confidence intervals are narrower than they would be over several sequences. Also, the poses of judged frames lie
between those of the reference frames, on which heads are fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.data.pictures import decode_image
from robossl.data.source import Damaged
from robossl.errors import InputError
from robossl.probes.frames import LATENCY_FRAMES, Label
from robossl.probes.sources.recorded import RecordedFrames

PIECE_SECONDS, GAP_SECONDS = 0.5, 0.1
MATCH_SECONDS = 0.02  # longest time between a frame and its pose, as in the benchmark


class TumFrames(RecordedFrames):
    """The frames of one sequence, with their camera poses."""

    cluster_key = f"piece of {PIECE_SECONDS:g} s"

    def __init__(self, root: Path) -> None:
        """Match each frame with the pose nearest in time, and choose the frames.

        Raises:
            InputError: a file is missing or has other columns, or too few frames have a pose.
        """
        self.name = root.resolve().name
        frames, poses = _read_lines(root / "rgb.txt", 2), _read_lines(root / "groundtruth.txt", 8)
        self._files = [root / line[1] for line in frames]
        times = _parse_numbers(root / "rgb.txt", [line[:1] for line in frames])[:, 0]
        table = _parse_numbers(root / "groundtruth.txt", poses)
        table = table[np.argsort(table[:, 0], kind="stable")]
        after = np.searchsorted(table[:, 0], times).clip(1, max(1, len(table) - 1)).clip(max=len(table) - 1)
        before = np.maximum(after - 1, 0)
        is_before = np.abs(table[before, 0] - times) <= np.abs(table[after, 0] - times)
        nearest = np.where(is_before, before, after)
        known = np.abs(table[nearest, 0] - times) <= MATCH_SECONDS
        # Times are rounded. Without the 1e-4, a frame at the start of a piece could count for the piece before.
        piece, inside = np.divmod(times - times[0] + 1e-4, PIECE_SECONDS)
        usable = known & (inside < PIECE_SECONDS - GAP_SECONDS)
        rows = np.flatnonzero(usable & (np.arange(len(times)) >= LATENCY_FRAMES))
        contents = [hashlib.sha256(_read_bytes(self._files[row])).digest() for row in rows]
        first = sorted({content: i for i, content in reversed(list(enumerate(contents)))}.values())
        # Keep only the first of several equal pictures, because retrieval could not tell them apart.
        self._rows = rows[first]
        if len(self._rows) < 2:
            raise InputError(f"{root}: {len(self._rows)} frames have a pose within {MATCH_SECONDS} s, two are needed")
        self.clusters = piece[self._rows].astype(np.int64)
        self.labels: Mapping[str, Label] = {"pose": Label("pose", table[nearest[self._rows], 1:])}
        self.notes: tuple[str, ...] = (
            f"left out {len(times) - len(rows)} of {len(times)} frames without a pose or between pieces, and "
            f"{len(rows) - len(first)} that repeat another",
            "one sequence: judged poses lie between reference poses, so the result does not extend to other places",
        )
        shape = _read(self._files[0]).shape
        self.hw = (shape[0], shape[1])
        kept = b"".join(contents[i] for i in first)
        self.digest = hashlib.sha256(
            self.labels["pose"].values.tobytes() + (root / "rgb.txt").read_bytes() + kept
        ).hexdigest()

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        """Return the unchanged frames at these positions."""
        return np.stack([self._read_sized(self._files[row]) for row in self._rows[at]])

    def earlier(self, at: Int[ndarray, " b"], frames: int) -> UInt8[ndarray, "b h w 3"]:
        """Return for each position the frame that stands `frames` lines earlier in `rgb.txt`."""
        return np.stack([self._read_sized(self._files[max(0, row - frames)]) for row in self._rows[at]])

    def _read_sized(self, path: Path) -> UInt8[ndarray, "h w 3"]:
        pixels = _read(path)
        if pixels.shape[:2] != self.hw:
            raise InputError(
                f"{path} is {pixels.shape[0]} x {pixels.shape[1]}, the first frame {self.hw}; one size only"
            )
        return pixels


def _read(path: Path) -> UInt8[ndarray, "h w 3"]:
    try:
        return decode_image(_read_bytes(path))
    except Damaged as error:
        raise InputError(f"{path} cannot be decoded: {error}") from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _read_lines(path: Path, width: int) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; each line must hold a time and its values") from None
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    wrong = next((line for line in lines if len(line) != width), None)
    if wrong is not None or not lines:
        raise InputError(f"{path}: every line needs {width} fields, got {' '.join(wrong or ['nothing'])!r}")
    return lines


def _parse_numbers(path: Path, lines: list[list[str]]) -> ndarray:
    try:
        return np.array(lines, np.float64)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
