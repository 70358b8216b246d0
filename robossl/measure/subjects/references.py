"""References (baselines) for every score: pooled pixels, a network with random weights, and the majority class."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.errors import InputError
from robossl.measure.subjects.resize import resize
from robossl.measure.subjects.subject import Backbone, Output, Subject, SubjectInfo, digest_of

if TYPE_CHECKING:
    from robossl_client.card import EncoderCard

    from robossl.encoders.encoder import EncoderConfig

PIXELS, MAJORITY = "pooled pixels", "majority class"  # names of two references (baselines) in tables
PIXEL_GRID = (16, 16)  # rows and columns of the cells that pixels are pooled into
STAND_IN = "resnet18"  # network of the random reference if the subject's backbone is unknown


def pixels_reference() -> Subject:
    """Return the pixel reference: the whole frame resized to 16 x 16 RGB cells, 768 numbers in 0 to 1."""
    height, width = PIXEL_GRID
    name = f"pixels {height}x{width}"
    info = SubjectInfo(
        name=name,
        source=name,
        kind="reference",
        sha256=digest_of(name),
        layer=PIXELS,
        dim=3 * height * width,
        dtype="float32",
        preprocessing=f"antialiased bilinear, whole frame to {height}x{width}; 0..1",
    )
    return Subject(info, digest_of(name), _pool_pixels, ("pooled",))


def _pool_pixels(frames: UInt8[ndarray, "b h w 3"]) -> dict[str, Float[ndarray, "b 768"]]:
    return {"pooled": resize(frames, PIXEL_GRID).reshape(len(frames), -1) / np.float32(255)}


def random_reference(
    subject: Subject, *, seed: int = 0, outputs: tuple[Output, ...] = ("pooled",), device: str = "cpu"
) -> Subject:
    """Return the random reference (baseline) of a subject: its backbone with random weights and its preprocessing.

    If the backbone is unknown or cannot be built at the size of the frames, a ResNet-18 is used instead. The field
    `backbone` of the returned subject then says "stand-in".

    Raises:
        InputError: the user named the backbone (--input.backbone), and it cannot be built at the size of the frames.
    """
    return random_subject(*reference_config(subject), seed=seed, outputs=outputs, device=device)


def reference_config(subject: Subject) -> tuple[EncoderConfig, Backbone]:
    """Return the configuration of a subject's random reference (see `random_reference`), and the reference's backbone.

    Raises:
        InputError: for the reason that `random_reference` gives.
    """
    from robossl.encoders.encoder import EncoderConfig

    input_hw = subject.input_hw or EncoderConfig().input_hw
    backbone = subject.backbone
    if backbone is not None and _is_known(backbone.name):
        config = EncoderConfig(backbone.name, input_hw=input_hw)
        if backbone.known_from == "card" and subject.card is not None:
            config = random_config(subject.card)
        try:
            _check_builds(config)
            return config, replace(backbone, name=config.backbone)
        except InputError:
            if backbone.known_from == "option":
                raise
    return EncoderConfig(STAND_IN, input_hw=input_hw), Backbone(STAND_IN, "stand-in")


def random_subject(
    config: EncoderConfig,
    backbone: Backbone,
    *,
    seed: int = 0,
    outputs: tuple[Output, ...] = ("pooled",),
    device: str = "cpu",
) -> Subject:
    """Return an encoder with random weights as a subject, so that it can be evaluated.

    Its residual branches are active. With timm's `zero_init_last` they would add nothing, and the features of a random
    ResNet would depend on little of the frame.
    """
    from robossl.encoders.inference import TorchEncoder, random_encoder
    from robossl.measure.subjects.encoders import encode_outputs, from_encode

    encode = random_encoder(config, seed)
    assert isinstance(encode, TorchEncoder)
    card = replace(encode.card, name=f"random {config.backbone}")
    encode = TorchEncoder(encode.encoder, card, device, outputs=encode_outputs(outputs))
    source = f"random init of {config.backbone}, seed {seed}"
    return replace(from_encode(encode, source, kind="reference", outputs=outputs), backbone=backbone)


def random_config(card: EncoderCard) -> EncoderConfig:
    """Return a configuration with random weights, and with the backbone and preprocessing of an encoder's card."""
    from robossl.encoders.encoder import EncoderConfig

    seen = card.input
    return EncoderConfig(
        backbone=card.backbone,
        input_hw=seen.input_hw,
        mean=(seen.mean[0], seen.mean[1], seen.mean[2]),
        std=(seen.std[0], seen.std[1], seen.std[2]),
    )


def _is_known(name: str) -> bool:
    import timm

    return bool(timm.is_model(name.partition(".")[0]))


@cache
def _check_builds(config: EncoderConfig) -> None:
    """Raise InputError if a network cannot be built, for example if it cannot take the input size of `config`."""
    from robossl.encoders.inference import random_encoder

    random_encoder(config, 0)
