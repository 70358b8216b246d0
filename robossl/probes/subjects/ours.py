"""Encoders with a card: a run or encoder folder, an exported model, one that a server has, and public ones by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.encode import Encode, identity, load_encode
from robossl.errors import InputError, ResourceError, reason
from robossl.probes.result import Backbone, Subject
from robossl.probes.subjects.probed import Output, Probed, digest_of, same_outputs
from robossl.probes.subjects.resize import resized_bytes

Kind = Literal["run", "onnx", "grpc", "timm", "reference"]


def open_ours(source: str, *, device: str, outputs: Sequence[Output]) -> Probed:
    """A run folder, an encoder folder, an exported model folder or its model.onnx.

    Raises:
        InputError: nothing of these.
    """
    encode = load_encode(source, device=device)
    return from_encode(encode, source, kind="onnx" if encode.card.model_sha256 else "run", outputs=outputs)


def open_timm(source: str, *, device: str, outputs: Sequence[Output]) -> Probed:
    """`timm:NAME` with the hub's weights, or `timm:NAME@FILE` with those of a file, as NAME was trained to see frames.

    Raises:
        InputError: an unknown name, a file that is missing or does not fit.
        ResourceError: the hub is not reached.
    """
    from robossl.cards import torch_card
    from robossl.encode import TorchEncode
    from robossl.encoder import EncoderConfig, build_encoder

    name, weights, trained = check_timm(source)
    config = EncoderConfig(backbone=name, init=weights or "timm")
    if trained is not None:
        (_, height, width), mean, std = trained.input_size, trained.mean, trained.std
        config = replace(
            config, input_hw=(height, width), mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2])
        )
    try:
        encoder = build_encoder(config)
    except ResourceError as error:
        raise ResourceError(
            f"cannot download the weights of {name} ({reason(error.__cause__ or error)}); download them elsewhere and "
            f"pass timm:{name}@FILE.safetensors"
        ) from error
    encode = TorchEncode(encoder, torch_card(encoder, name=name, extra={}), device)
    return from_encode(encode, source, kind="timm", outputs=outputs)


def check_timm(source: str) -> tuple[str, str, Any]:
    """The name, the source of the weights (empty: the hub's), and what timm knows of how it was trained.

    Raises:
        InputError: an unknown name, or a file that is missing.
    """
    import timm

    from robossl.probes.subjects.backbone import unknown_network
    from robossl.weights import split_source

    name, _, weights = source.removeprefix("timm:").partition("@")
    file, _ = split_source(weights)
    if weights and not file.exists():
        raise InputError(f"no file {str(file)!r}; pass timm:NAME@FILE, or timm:NAME for the hub's")
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(unknown_network(name))
    try:
        return name, weights, timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise InputError(f"{source}: {reason(error)} timm.list_pretrained() names them all") from error


def from_encode(encode: Encode, source: str, *, kind: Kind, outputs: Sequence[Output]) -> Probed:
    """An open encoder as a subject."""
    card, seen = encode.card, encode.card.input
    hw = seen.fixed_hw or seen.input_hw
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (seen.mean, seen.std))
    about = Subject(
        name=card.name,
        source=source,
        kind=kind,
        sha256=card.model_sha256 or card.digest,
        layer=f"pooled: mean over the last feature map of {card.backbone}",
        dim=int(encode(np.full((1, *hw, 3), 128, np.uint8))["pooled"].shape[1]),
        dtype=card.precision,
        preprocessing=f"{seen.resize} to {seen.input_hw[0]}x{seen.input_hw[1]}; 0..1, mean {mean}, std {std}",
    )

    def embed(frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        return encode(frames if seen.fixed_hw is None else resized_bytes(frames, seen.fixed_hw))

    # how it is computed belongs to the digest: torch, onnxruntime and a server are compared with each other
    backbone = Backbone(card.backbone, "card")
    digest = digest_of(kind, identity(card))
    return Probed(about, digest, embed, same_outputs(outputs, card.outputs), card, hw, backbone)
