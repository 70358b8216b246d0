"""Probed: something that embeds frames, what the report says of it, and what tells its features apart on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.errors import InputError
from robossl.probes.result import Backbone, Subject

if TYPE_CHECKING:
    from robossl_client.card import EncoderCard

Output = Literal["pooled", "dense"]
Embed = Callable[[UInt8[ndarray, "b h w 3"]], Mapping[str, ndarray]]


@dataclass(frozen=True, slots=True)
class Probed:
    """A subject that is open; `embed` gives "pooled" (b, d) and, where there is one, "dense" (b, c, h, w).

    Args:
        about: What the report says of it.
        digest: Of all that its features depend on, the way they are computed too.
        embed: Features of a batch of frames.
        outputs: Which of the two it has.
        card: Where it is an encoder of ours.
        input_hw: The size it sees frames at; None where it takes them as they are.
        backbone: Its network, as far as that is known; None where it has none, as pixels, or nothing names it.
    """

    about: Subject
    digest: str
    embed: Embed
    outputs: tuple[Output, ...]
    card: EncoderCard | None = None
    input_hw: tuple[int, int] | None = None
    backbone: Backbone | None = None

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """float32 features of frames, checked.

        Raises:
            InputError: a row too few or too many, a wrong number of axes, nan or infinity.
        """
        given = self.embed(frames)
        return {name: self._checked(name, given[name], len(frames)) for name in self.outputs}

    def _checked(self, name: Output, values: ndarray, num_frames: int) -> ndarray:
        shape = "(frames, d)" if name == "pooled" else "(frames, c, h, w)"
        if values.ndim != (2 if name == "pooled" else 4) or len(values) != num_frames:
            raise InputError(
                f"{self.about.name}: {name} of {num_frames} frames must be {shape}, got {values.shape}; name another "
                "output of the model"
            )
        values = values.astype(np.float32, copy=False)
        bad = int(np.sum(~np.isfinite(values).reshape(num_frames, -1).all(1)))
        if bad:
            raise InputError(
                f"{self.about.name}: {name} holds nan or infinity for {bad} of {num_frames} frames; check its weights "
                f"and what was said of its input ({self.about.preprocessing})"
            )
        return values


def digest_of(*parts: object) -> str:
    """One sha256 of what is told apart."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def same_outputs(asked: Sequence[Output], known: Collection[str]) -> tuple[Output, ...]:
    """Those of the asked outputs that an encoder has; a dense map is no must."""
    return tuple(name for name in asked if name == "pooled" or name in known)
