"""Subject: an open encoder, or a reference (baseline) that encoders are compared with. It embeds frames.

A subject also has a description for reports and a digest that identifies it in caches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.errors import InputError

if TYPE_CHECKING:
    from robossl_client.card import EncoderCard

Output = Literal["pooled", "cls", "dense"]  # their shapes are (b, d), (b, d) and (b, c, h, w)
Kind = Literal["run", "onnx", "grpc", "timm", "pip", "reference"]
Embed = Callable[[UInt8[ndarray, "b h w 3"]], Mapping[str, ndarray]]


@dataclass(frozen=True, slots=True)
class SubjectInfo:
    """What a report says about a subject (an encoder or a baseline)."""

    name: str
    source: str
    kind: Kind
    sha256: str
    layer: str
    dim: int
    dtype: str
    preprocessing: str


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network architecture, and where its name comes from."""

    name: str  # timm's name of the architecture
    # Where the name comes from. "stand-in": nothing names the network, so a default is used.
    known_from: Literal["card", "option", "metadata", "file name", "stand-in"]


@dataclass(frozen=True, slots=True)
class Subject:
    """An open encoder, or a reference (baseline), that embeds frames.

    Args:
        info: What a report says about the subject.
        digest: Digest of everything that the features depend on, including how they are computed.
        embed: Function that embeds a batch of frames and returns features by output name.
        outputs: Names of the outputs that the subject returns.
        card: Card of the encoder (the description in its card.json); None if the subject has no card.
        input_hw: Height and width to which frames are resized; None if the subject takes frames of any size.
        backbone: The subject's network; None if it has none (pixels) or if nothing names it.
    """

    info: SubjectInfo
    digest: str
    embed: Embed
    outputs: tuple[Output, ...]
    card: EncoderCard | None = None
    input_hw: tuple[int, int] | None = None
    backbone: Backbone | None = None

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[Output, ndarray]:
        """Embed frames, check the features and return them as float32, by output name.

        Raises:
            InputError: an output has a wrong number of rows or axes, or contains nan or infinity.
        """
        features = self.embed(frames)
        return {name: self._checked(name, features[name], len(frames)) for name in self.outputs}

    def _checked(self, name: Output, values: ndarray, num_frames: int) -> ndarray:
        is_map = name == "dense"
        if values.ndim != (4 if is_map else 2) or len(values) != num_frames:
            shape = "(frames, c, h, w)" if is_map else "(frames, d)"
            raise InputError(
                f"{self.info.name}: {name} of {num_frames} frames must be {shape}, got {values.shape}; name another "
                "output of the model"
            )
        values = values.astype(np.float32, copy=False)
        num_bad = int(np.sum(~np.isfinite(values).reshape(num_frames, -1).all(1)))
        if num_bad:
            raise InputError(
                f"{self.info.name}: {name} holds nan or infinity for {num_bad} of {num_frames} frames; check its "
                f"weights and its input ({self.info.preprocessing}), or use a checkpoint from before training diverged"
            )
        return values


def digest_of(*parts: object) -> str:
    """Return one sha256 of all parts."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def available_outputs(wanted: Sequence[Output], known: Collection[str]) -> tuple[Output, ...]:
    """Return the wanted outputs. Only "dense" (the feature map) is optional: if it is not in `known`, leave it out."""
    return tuple(name for name in wanted if name != "dense" or name in known)
