"""Films of rollouts: one success and one failure of each policy under each condition, as mp4 files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.common.atomic_io import atomic_write, raise_disk_full
from robossl.policies.simulator import Act, Rollout, RolloutView

FRAMES_PER_S = 10
OUTCOMES = ("success", "failure")


class FilmedPolicy:
    """A policy that keeps what it is shown, until its rollouts are done: about 2 MB for an episode of 60 frames."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._frames: dict[int, list[UInt8[ndarray, "h w 3"]]] = {}

    def __call__(self, view: RolloutView) -> Float[ndarray, "n a"]:
        """Return an action for each row."""
        for scene, frame in zip(view.scenes, view.frames, strict=True):
            self._frames.setdefault(int(scene), []).append(frame)
        return self._act(view)

    def write(self, place: Path, name: str, rollouts: Sequence[Rollout]) -> None:
        """Write the first success and the first failure, `NAME_success.mp4` and `NAME_failure.mp4`, if there are any.

        Raises:
            ResourceError: the disk is full.
        """
        place.mkdir(parents=True, exist_ok=True)
        for outcome in OUTCOMES:
            scene = next((each.scene for each in rollouts if each.success == (outcome == "success")), None)
            if scene is not None:
                with raise_disk_full(place), atomic_write(place / f"{name}_{outcome}.mp4") as aside:
                    aside.write_bytes(encode_film(np.stack(self._frames[scene])))


def encode_film(frames: UInt8[ndarray, "t h w 3"]) -> bytes:
    """Return frames as an mp4 that browsers play; an odd height or width loses its last row or column."""
    import av

    height, width = (size - size % 2 for size in frames.shape[1:3])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # `mbtree` off and one thread make equal frames equal bytes.
        stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_S), options={"crf": "23", "mbtree": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames[:, :height, :width]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
