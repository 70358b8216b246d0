"""Subjects with a card: a run or encoder folder, an exported model, an encoder on a server, or one of timm's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.encode import Encode, identity, load_encode
from robossl.errors import InputError, ResourceError, reason
from robossl.measure.subjects.resize import resize_to_bytes
from robossl.measure.subjects.subject import (
    Backbone,
    Kind,
    Output,
    Subject,
    SubjectInfo,
    available_outputs,
    digest_of,
)


def open_encoder(source: str, *, device: str, outputs: Sequence[Output]) -> Subject:
    """Open a run folder, an encoder folder, an exported model folder or its model.onnx.

    Raises:
        InputError: none of these, or an output that the encoder does not have.
    """
    encode = load_encode(source, device=device, outputs=encode_outputs(outputs))
    return from_encode(encode, source, kind="onnx" if encode.card.model_sha256 else "run", outputs=outputs)


def open_timm(source: str, *, device: str, outputs: Sequence[Output]) -> Subject:
    """Open `timm:NAME` with the hub's weights or `timm:NAME@FILE` with a file's, with the preprocessing of NAME.

    Raises:
        InputError: an unknown name, a missing file, or a file of other weights.
        ResourceError: the hub cannot be reached.
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
    card = torch_card(encoder, name=name, extra={})
    encode = TorchEncode(encoder, card, device, outputs=encode_outputs(outputs))
    return from_encode(encode, source, kind="timm", outputs=outputs)


def check_timm(source: str) -> tuple[str, str, Any]:
    """Return the name, the source of the weights (empty: the hub), and timm's pretrained configuration.

    Raises:
        InputError: an unknown name or a missing file.
    """
    import timm

    from robossl.measure.subjects.backbone import unknown_network
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


def encode_outputs(outputs: Sequence[Output]) -> Sequence[Output] | None:
    """Return the outputs to ask an encoder for; None (all) if a dense map is wanted, which not every encoder has."""
    return None if "dense" in outputs else outputs


def from_encode(encode: Encode, source: str, *, kind: Kind, outputs: Sequence[Output]) -> Subject:
    """Wrap an open encoder as a subject."""
    card, seen = encode.card, encode.card.input
    hw = seen.fixed_hw or seen.input_hw
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (seen.mean, seen.std))
    has_pooled = "pooled" in outputs
    example = encode(np.full((1, *hw, 3), 128, np.uint8))[outputs[0]]
    info = SubjectInfo(
        name=card.name,
        source=source,
        kind=kind,
        sha256=card.model_sha256 or card.digest,
        layer=f"{'pooled: mean over the last feature map' if has_pooled else 'cls: class token'} of {card.backbone}",
        dim=int(example.shape[1]),
        dtype=card.precision,
        preprocessing=f"{seen.resize} to {seen.input_hw[0]}x{seen.input_hw[1]}; 0..1, mean {mean}, std {std}",
    )

    def embed(frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        return encode(frames if seen.fixed_hw is None else resize_to_bytes(frames, seen.fixed_hw))

    # The kind is in the digest, so that torch, onnxruntime and a server can be compared with each other.
    digest = digest_of(kind, identity(card))
    return Subject(
        info, digest, embed, available_outputs(outputs, card.outputs), card, hw, Backbone(card.backbone, "card")
    )
