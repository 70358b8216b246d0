"""References: what every figure stands beside, pooled pixels and the same backbone before any training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.errors import InputError
from robossl.probes.result import Backbone, Subject
from robossl.probes.subjects.probed import Output, Probed, digest_of
from robossl.probes.subjects.resize import resized

CELLS = 16  # a side
FALLBACK = "resnet18"  # stands in where the backbone is not known


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
    """Build the backbone of a subject at random init, seeing frames as the subject does.

    A ResNet-18 stands in where the backbone is not known; `backbone` of what is returned says which it is and why. Its
    residual branches are alive: with timm's `zero_init_last` it would be blind to most of the frame.

    Raises:
        InputError: the backbone that --input.backbone names cannot be built at the size of the frames.
    """
    if probed.backbone is not None and _is_known(probed.backbone):
        try:
            return _at_random(probed, probed.backbone, seed, outputs, device)
        except InputError:
            if probed.backbone.known_from == "option":
                raise
    return _at_random(probed, Backbone(FALLBACK, "stand-in"), seed, outputs, device)


def _is_known(backbone: Backbone) -> bool:
    import timm

    return bool(timm.is_model(backbone.name.partition(".")[0]))


def _at_random(probed: Probed, backbone: Backbone, seed: int, outputs: tuple[Output, ...], device: str) -> Probed:
    from robossl.encode import TorchEncoder, random_encoder
    from robossl.encoder import EncoderConfig
    from robossl.evaluate.subjects import random_config
    from robossl.probes.subjects.ours import from_encode

    if backbone.known_from == "card" and probed.card is not None:
        config = random_config(probed.card)
    else:
        config = EncoderConfig(backbone.name, input_hw=probed.input_hw or EncoderConfig().input_hw)
    encode = random_encoder(config, seed)
    assert isinstance(encode, TorchEncoder)
    encode = TorchEncoder(encode.encoder, replace(encode.card, name=f"random {config.backbone}"), device)
    source = f"random init of {config.backbone}, seed {seed}"
    reference = from_encode(encode, source, kind="reference", outputs=outputs)
    return replace(reference, backbone=replace(backbone, name=config.backbone))
