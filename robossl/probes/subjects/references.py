"""References: what every figure stands beside, pooled pixels and the same backbone before any training."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.probes.result import Subject
from robossl.probes.subjects.probed import Output, Probed, digest_of
from robossl.probes.subjects.resize import resized

CELLS = 16  # a side
FALLBACK = "resnet18"  # where the backbone is not known


def pixels_reference() -> Probed:
    """The frame averaged down to 16 x 16 RGB cells, 768 numbers: it has learned nothing and destroys little."""
    name = f"pixels {CELLS}x{CELLS}"
    about = Subject(
        name=name,
        source=name,
        kind="reference",
        sha256=digest_of(name),
        layer="pooled pixels",
        dim=3 * CELLS * CELLS,
        dtype="float32",
        preprocessing=f"antialiased bilinear, whole frame to {CELLS}x{CELLS}; 0..1",
    )
    return Probed(about, digest_of(name), _pooled_pixels, ("pooled",))


def _pooled_pixels(frames: UInt8[ndarray, "b h w 3"]) -> dict[str, Float[ndarray, "b 768"]]:
    return {"pooled": resized(frames, (CELLS, CELLS)).reshape(len(frames), -1) / np.float32(255)}


def random_reference(
    probed: Probed, *, seed: int = 0, outputs: tuple[Output, ...] = ("pooled",), device: str = "cpu"
) -> Probed:
    """The backbone of a subject at random init, seeing frames as it does; a ResNet-18 where its backbone is not known.

    Its residual branches are alive: with timm's `zero_init_last` it would be blind to most of the frame.
    """
    from dataclasses import replace

    import timm

    from robossl.encode import TorchEncode, random_encode
    from robossl.encoder import EncoderConfig
    from robossl.evaluate.subjects import random_config
    from robossl.probes.subjects.ours import from_encode

    card = probed.card
    if card is not None and timm.is_model(card.backbone.partition(".")[0]):
        config = random_config(card)
    else:
        config = EncoderConfig(FALLBACK, input_hw=probed.input_hw or EncoderConfig().input_hw)
    encode = random_encode(config, seed)
    assert isinstance(encode, TorchEncode)
    encode = TorchEncode(encode.encoder, replace(encode.card, name=f"random {config.backbone}"), device)
    return from_encode(encode, f"random init of {config.backbone}, seed {seed}", kind="reference", outputs=outputs)
