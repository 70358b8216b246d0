"""Find missing pictures in an H.264 stream by their frame numbers. FFmpeg hides a gap: it predicts across it.

Syntax and numbers of clauses: ITU-T H.264 (08/2021).
"""

from __future__ import annotations

import re

from robossl.data.source import Damaged

SLICES, KEY_SLICE, PARAMETERS = (1, 5), 5, 7  # types of NAL units (table 7-1)

_UNIT = re.compile(rb"\x00\x00\x01")
# Profiles whose parameters state the format of chroma (7.3.2.1.1).
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_HEAD_BYTES = 64  # bytes of a slice that are read: its head begins with the frame number


class BitReader:
    """Reads numbers bit by bit from a NAL unit."""

    def __init__(self, unit: bytes) -> None:
        data = unit.replace(b"\x00\x00\x03", b"\x00\x00")  # bytes that keep start codes out of the data (7.4.1)
        self._bits = int.from_bytes(data)
        self._left = 8 * len(data)

    def bits(self, count: int) -> int:
        """Return the next `count` bits as a number.

        Raises:
            Damaged: there are fewer.
        """
        self._left -= count
        if self._left < 0:
            raise Damaged("corrupt H.264: a unit is too short")
        return self._bits >> self._left & ((1 << count) - 1)

    def ue(self) -> int:
        """Return the next unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
        return (1 << zeros) - 1 + self.bits(zeros)

    def se(self) -> int:
        """Return the next signed Exp-Golomb number (9.1.1)."""
        number = self.ue()
        return (number + 1) // 2 if number % 2 else -(number // 2)


class FrameNumbers:
    """Checks that the reference pictures of a stream follow each other without a gap."""

    def __init__(self) -> None:
        self._num_bits = 0  # 0: no parameters yet, or gaps are allowed
        self._has_planes = False
        self._before = 0  # frame number of the last reference picture

    def check(self, data: bytes) -> None:
        """Check the picture in a message.

        Raises:
            Damaged: a picture before it is missing.
        """
        starts = [match.end() for match in _UNIT.finditer(data)]
        for begin, end in zip(starts, [*starts[1:], len(data)], strict=True):
            kind = data[begin] & 31 if begin < len(data) else 0
            if kind == PARAMETERS:
                self._read_parameters(BitReader(data[begin + 1 : end]))
            elif kind in SLICES and self._num_bits:
                self._check_slice(data[begin : min(end, begin + _HEAD_BYTES)], kind)
                return  # the other slices of the picture have the same number

    def _check_slice(self, unit: bytes, kind: int) -> None:
        reader = BitReader(unit[1:])
        for _ in range(3):  # first macroblock, type, parameters
            reader.ue()
        if self._has_planes:
            reader.bits(2)
        number = reader.bits(self._num_bits)
        if kind != KEY_SLICE and (number - self._before) % (1 << self._num_bits) > 1:
            raise Damaged(f"a message of the h264 video is missing: picture {number} comes after {self._before}")
        if unit[0] >> 5 & 3:  # a reference picture
            self._before = number

    def _read_parameters(self, reader: BitReader) -> None:
        """Read the sequence parameter set (7.3.2.1.1) as far as it says how frames are numbered."""
        profile = reader.bits(8)
        reader.bits(16)
        reader.ue()
        self._has_planes = False
        if profile in _HIGH_PROFILES:
            chroma = reader.ue()
            self._has_planes = chroma == 3 and bool(reader.bits(1))
            reader.ue(), reader.ue(), reader.bits(1)  # depths of bits, bypass
            if reader.bits(1):
                for number in range(8 if chroma != 3 else 12):
                    if reader.bits(1):
                        _skip_scaling_list(reader, 16 if number < 6 else 64)
        num_bits = reader.ue() + 4
        order = reader.ue()
        if order == 0:
            reader.ue()
        elif order == 1:
            reader.bits(1), reader.se(), reader.se()
            for _ in range(reader.ue()):
                reader.se()
        reader.ue()  # number of reference frames
        are_gaps_allowed = reader.bits(1)
        self._num_bits = 0 if are_gaps_allowed else num_bits


def _skip_scaling_list(reader: BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + reader.se()) % 256
        last = following or last
