"""Encoders with a card: a run or encoder folder, an exported model, one that a server has, and public ones by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.encode import FrameEncoder, identity, load_encoder
from robossl.probes.result import Backbone, Subject
from robossl.probes.subjects.probed import Output, Probed, digest_of, same_outputs
from robossl.probes.subjects.resize import resized_bytes

Kind = Literal["run", "onnx", "grpc", "timm", "reference"]


def open_ours(source: str, *, device: str, outputs: Sequence[Output]) -> Probed:
    """A run folder, an encoder folder, an exported model folder or its model.onnx.

    Raises:
        InputError: nothing of these.
    """
    encode = load_encoder(source, device=device)
    return from_encode(encode, source, kind="onnx" if encode.card.model_sha256 else "run", outputs=outputs)


def open_timm(source: str, *, device: str, outputs: Sequence[Output]) -> Probed:
    """`timm:NAME` with the hub's weights, or `timm:NAME@FILE` with those of a file, as NAME was trained to see frames.

    Raises:
        InputError: an unknown name, a file that is missing or does not fit.
        ResourceError: the hub is not reached.
    """
    return from_encode(load_encoder(source, device=device), source, kind="timm", outputs=outputs)


def from_encode(encode: FrameEncoder, source: str, *, kind: Kind, outputs: Sequence[Output]) -> Probed:
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
