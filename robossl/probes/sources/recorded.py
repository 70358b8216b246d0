"""Base class of sources with recorded scenes, which cannot be changed."""

from __future__ import annotations

from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from robossl.probes.frames import RECORDED, ViewUnavailableError


class RecordedFrames:
    """Frames of recorded scenes. The methods that would change a scene raise an error."""

    def scene(self, at: Int[ndarray, " b"], factor: str, strength: int) -> UInt8[ndarray, "b h w 3"]:
        """Raise an error, because recorded scenes cannot be changed.

        Raises:
            ViewUnavailableError: always.
        """
        raise ViewUnavailableError(RECORDED)

    def scene_warp(self, at: Int[ndarray, " b"], factor: str, strength: int) -> Float[ndarray, "b 3 3"]:
        """Raise an error, because recorded scenes cannot be changed.

        Raises:
            ViewUnavailableError: always.
        """
        raise ViewUnavailableError(RECORDED)
