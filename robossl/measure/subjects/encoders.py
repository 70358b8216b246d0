"""Subjects with a card (description): encoders from a run, an encoder folder, an exported model, a server, or timm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.encoders.inference import FrameEncoder, identity, load_encoder
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
        InputError: the source is none of these, or the encoder does not have one of the outputs.
    """
    encode = load_encoder(source, device=device, outputs=encode_outputs(outputs))
    return from_encode(encode, source, kind="onnx" if encode.card.model_sha256 else "run", outputs=outputs)


def open_public(source: str, *, device: str, outputs: Sequence[Output]) -> Subject:
    """Open `timm:NAME` with weights from the hub, `timm:NAME@FILE` from a file, or `pip:NAME` from a package.

    The preprocessing is that of NAME in all cases.

    Raises:
        InputError: the name is unknown, the package is not installed, or the file is missing or has other weights.
        ResourceError: the hub cannot be reached.
    """
    encode = load_encoder(source, device=device, outputs=encode_outputs(outputs))
    return from_encode(encode, source, kind="pip" if source.startswith("pip:") else "timm", outputs=outputs)


def encode_outputs(outputs: Sequence[Output]) -> Sequence[Output] | None:
    """Return the outputs to request from an encoder. If "dense" is wanted, return None, which requests all outputs.

    Not every encoder has the dense output (a feature map), so it cannot be requested by name.
    """
    return None if "dense" in outputs else outputs


def from_encode(encode: FrameEncoder, source: str, *, kind: Kind, outputs: Sequence[Output]) -> Subject:
    """Make a subject (an encoder to evaluate, with a description for reports) from an open encoder."""
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

    # The digest contains the kind (torch, onnxruntime or server), so that each kind has its own features in the cache.
    digest = digest_of(kind, identity(card))
    return Subject(
        info, digest, embed, available_outputs(outputs, card.outputs), card, hw, Backbone(card.backbone, "card")
    )
