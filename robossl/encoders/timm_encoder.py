"""Public encoders: `timm:NAME` (weights from the hub), `timm:NAME@FILE` (from a file), `pip:NAME` (from a package)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import timm
from robossl_client.card import EncoderCard

from robossl.encoders.backbones import unknown_backbone
from robossl.encoders.cards import torch_card
from robossl.encoders.encoder import Encoder, EncoderConfig, build_encoder
from robossl.encoders.pip_weights import PREFIX, find_package
from robossl.encoders.weights import split_source
from robossl.errors import InputError, ResourceError, reason


def open_timm(source: str) -> tuple[Encoder, EncoderCard]:
    """Build a public encoder and its card (description). Input size, mean and std are as in the encoder's training.

    Raises:
        InputError: the name is unknown, or the file is missing or does not fit.
        ResourceError: the weights cannot be downloaded.
    """
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
    return encoder, torch_card(encoder, name=name, extra={})


def open_pip(source: str) -> tuple[Encoder, EncoderCard]:
    """Build the encoder of a package and its card (description). Input size, mean and std are as in its training.

    Raises:
        InputError: the name is unknown, the package is not installed, or its file is damaged.
    """
    package = find_package(source)
    config = EncoderConfig(
        backbone=package.backbone, init=source, input_hw=package.input_hw, mean=package.mean, std=package.std
    )
    encoder = build_encoder(config)
    return encoder, torch_card(encoder, name=source.removeprefix(PREFIX), extra={})


def check_timm(source: str) -> tuple[str, str, Any]:
    """Check the address of a public encoder; return its name, its weights and timm's record of its training.

    The weights are the path of a file, or "" for those of timm's hub. The record is None if timm has none.

    Raises:
        InputError: the name is unknown, or the file is missing.
    """
    name, _, weights = source.removeprefix("timm:").partition("@")
    file, _ = split_source(weights)
    if weights and not file.exists():
        raise InputError(f"no file {str(file)!r}; pass timm:NAME@FILE, or timm:NAME for the hub's")
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(unknown_backbone(name))
    try:
        return name, weights, timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise InputError(f"{source}: {reason(error)} timm.list_pretrained() names them all") from error
