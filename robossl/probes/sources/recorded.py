"""Recorded: what every source has in common whose scenes cannot be built again."""

from __future__ import annotations

from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from robossl.probes.frames import RECORDED, UnavailableError


class RecordedFrames:
    """Frames of scenes that cannot be changed."""

    def scene(self, at: Int[ndarray, " b"], factor: str, strength: int) -> UInt8[ndarray, "b h w 3"]:
        """Recorded scenes cannot be changed.

        Raises:
            Unavailable: always.
        """
        raise UnavailableError(RECORDED)

    def scene_warp(self, at: Int[ndarray, " b"], factor: str, strength: int) -> Float[ndarray, "b 3 3"]:
        """Recorded scenes cannot be changed.

        Raises:
            Unavailable: always.
        """
        raise UnavailableError(RECORDED)
