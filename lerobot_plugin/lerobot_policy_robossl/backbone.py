"""The encoder as a vision backbone: it is built from its source or from a saved policy, and is frozen or trains."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robossl.encoders.encoder import Encoder, build_encoder, config_from_json
from robossl.encoders.inference import TorchEncoder, load_encoder
from robossl.encoders.layers import freeze_stages, layer_numbers
from robossl.encoders.weights import weights_digest
from robossl.errors import InputError


class EncoderBackbone(nn.Module):
    """A copy of an encoder that maps frames in 0..1 of any size to its feature map.

    It resizes and normalises frames as the encoder's card says. Its batch-norms keep their statistics, because batches
    of few scenes would replace them by those of few scenes.

    Args:
        encoder: The encoder; it stays as it is.
        tune: frozen, last (its last stage trains) or all.

    Raises:
        InputError: for `last`, the backbone does not say what its stages are, or has only one.
    """

    def __init__(self, encoder: Encoder, tune: str) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(tune != "frozen")
        if tune == "last":
            name = encoder.config.backbone
            stages = max(layer_numbers(self.encoder.backbone, name=name, stages=True).values())
            freeze_stages(self.encoder.backbone, stages - 1, name=name)
        self.is_frozen = tune == "frozen"
        with torch.no_grad():
            self.shape = tuple(self.encoder.eval()(torch.zeros(1, 3, *encoder.config.input_hw)).dense.shape[1:])

    def train(self, mode: bool = True) -> EncoderBackbone:
        """Set the mode of this module; the encoder stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c H W"]:
        """Return the feature map of frames in 0..1, or in 0..255 if they are uint8."""
        hw = self.encoder.config.input_hw
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            resized = nn.functional.interpolate(pixels, hw, mode="bilinear", antialias=True)
            dense: Tensor = self.encoder(self.encoder.normalise(resized)).dense
        return dense


def encoder_of(config: Any, *, weights_follow: bool) -> Encoder:
    """Return the encoder of a policy, and record it in the policy's configuration.

    Args:
        config: The configuration of the policy.
        weights_follow: Whether a saved policy is being read. It has the weights of the encoder, so the encoder's source
            may be gone.

    Raises:
        InputError: no encoder is named, it has no weights that can be saved with the policy, or it is not the one that
            the configuration recorded.
    """
    record = config.encoder_record
    if weights_follow and record:
        if config.encoder != record["source"]:
            raise InputError(
                f"the saved policy keeps its encoder {record['source']}, but policy.encoder is {config.encoder}; leave "
                "policy.encoder out, or train a new policy"
            )
        with torch.random.fork_rng(devices=[]):
            return build_encoder(dataclasses.replace(config_from_json(record["config"]), init="random", init_hw=None))
    if not config.encoder:
        raise InputError("no encoder; set --policy.encoder to a run, an encoder folder, timm:NAME or pip:NAME")
    opened = None if config.encoder.startswith("grpc://") else load_encoder(config.encoder, outputs=("dense",))
    if not isinstance(opened, TorchEncoder):
        raise InputError(
            f"{config.encoder} has no weights that a policy can train or be saved with; name the run or encoder folder "
            "that it was exported from"
        )
    if record and record["digest"] != opened.card.digest:
        raise InputError(
            f"{config.encoder} has other weights (digest {opened.card.digest[:12]}) than the policy's configuration "
            f"recorded ({record['digest'][:12]}); name the same encoder, or remove encoder_record from it"
        )
    values = dataclasses.asdict(opened.encoder.config)
    config.encoder_record = {
        "source": config.encoder,
        "name": opened.card.name,
        "digest": opened.card.digest,
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
        "is_changed": config.tune != "frozen",
        "licences": list(opened.card.licences),
        "warnings": list(opened.card.warnings),
    }
    return opened.encoder


def check_weights(config: Any, backbones: list[EncoderBackbone]) -> None:
    """Check that a policy whose encoder was never trained has the encoder that its configuration records.

    Raises:
        InputError: the weights differ.
    """
    record = config.encoder_record
    for backbone in backbones:
        digest = weights_digest(backbone.encoder.backbone.state_dict())
        if not record["is_changed"] and digest != record["digest"]:
            raise InputError(
                f"the saved policy holds other weights (digest {digest[:12]}) than those of its frozen encoder "
                f"{record['name']} ({record['digest'][:12]}); save or download it again"
            )
    if backbones and config.tune != "frozen":
        config.encoder_record = {**record, "is_changed": True}
