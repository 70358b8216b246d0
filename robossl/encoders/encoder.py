"""The encoder: a timm backbone with named features (pooled feature, class token, dense feature map, keypoints)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from robossl.encoders.backbones import advise_size, build_backbone, hub_hw
from robossl.encoders.encoder_config import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig, config_from_json
from robossl.encoders.encoder_files import SCHEMA, read_about, read_input_hw, read_state, write_folder
from robossl.encoders.layers import held_modules
from robossl.encoders.outputs import Features, named_outputs, spatial_softmax
from robossl.encoders.pip_weights import PREFIX, check_settings, read_package
from robossl.encoders.positions import PositionMatrix, ResizeByMatrix, resize_matrix, token_grid
from robossl.encoders.weight_names import load_weights
from robossl.encoders.weights import read_hub, read_weights, split_source, weights_digest
from robossl.errors import InputError, reason

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Encoder",
    "EncoderConfig",
    "Features",
    "build_encoder",
    "config_from_json",
    "named_outputs",
    "read_encoder",
    "resize_matrix",
    "save_encoder",
    "spatial_softmax",
    "unused_weights",
]


class Encoder(nn.Module):
    """A timm backbone without its classifier. Call it on normalised pixels; `preprocess` makes them from frames."""

    # A timm model. Its type is Any, because timm models share attributes that nn.Module does not declare.
    backbone: Any

    def __init__(self, backbone: nn.Module, config: EncoderConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.feature_dim = int(self.backbone.num_features)
        self.has_cls = getattr(backbone, "cls_token", None) is not None
        # Whether the backbone resizes its position embeddings to the size of its input.
        self.has_grid = getattr(backbone, "dynamic_img_size", False)
        cls_tokens = self.backbone.cls_token.shape[1] if self.has_cls else 0
        self.num_prefix_tokens = int(getattr(self.backbone, "num_prefix_tokens", cls_tokens))
        self.position_matrix: PositionMatrix = functools.partial(resize_matrix, mode="bicubic")
        self.held_modules = held_modules(  # names of the backbone's modules that stay in eval mode
            backbone, stages=config.frozen_stages, norms=config.frozen_norm_stats, name=config.backbone
        )
        self.train()

    def train(self, mode: bool = True) -> Encoder:
        """Set train or eval mode; frozen stages and batch-norms stay in eval mode, so they keep their statistics."""
        super().train(mode)
        for name in self.held_modules:
            self.backbone.get_submodule(name).eval()
        return self

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Features:
        """Return features of normalised pixels. Their size may be any that the backbone takes.

        A ViT, for example, takes multiples of its patch size.

        Raises:
            InputError: the output of the backbone is neither a feature map nor patch tokens of the whole frame.
        """
        resized = self.has_grid and tuple(pixels.shape[-2:]) != self.config.input_hw
        with ResizeByMatrix(self.position_matrix) if resized else contextlib.nullcontext():
            out: Tensor | list[Tensor] = self.backbone.forward_features(pixels)
        if isinstance(out, Tensor) and out.ndim == 4 and self.feature_dim in (out.shape[1], out.shape[3]):
            dense = out if out.shape[1] == self.feature_dim else out.permute(0, 3, 1, 2)
            return Features(pooled=dense.mean((2, 3)), dense=dense, cls=None)
        if isinstance(out, Tensor) and out.ndim == 3 and out.shape[2] == self.feature_dim:
            grid = token_grid(out.shape[1] - self.num_prefix_tokens, (pixels.shape[-2], pixels.shape[-1]))
            if grid is not None:
                patches = out[:, self.num_prefix_tokens :]
                dense = patches.transpose(1, 2).reshape(-1, self.feature_dim, *grid)
                return Features(pooled=patches.mean(1), dense=dense, cls=out[:, 0] if self.has_cls else None)
        got = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise InputError(
            f"{self.config.backbone} gives {got} for frames of {pixels.shape[-2]}x{pixels.shape[-1]}, not a map "
            f"of {self.feature_dim} channels over the frame; choose another backbone, such as resnet18 or "
            "vit_small_patch16_224"
        )

    def preprocess(self, frames: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 H W"]:
        """Resize whole frames to `input_hw` (antialiased bilinear, aspect not kept) and normalise them."""
        pixels = frames.permute(0, 3, 1, 2).to(dtype=torch.float32) / 255
        return self.normalise(F.interpolate(pixels, self.config.input_hw, mode="bilinear", antialias=True))

    def normalise(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Subtract the mean from pixels in 0..1 and divide by the std."""
        mean = torch.tensor(self.config.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.config.std, device=pixels.device).view(3, 1, 1)
        return (pixels - mean) / std


def build_encoder(config: EncoderConfig) -> Encoder:
    """Make an encoder with its initial weights; random weights come from torch's global generator.

    Raises:
        InputError: the backbone is unknown, or the size or the checkpoint does not fit it.
        ResourceError: the weights of the hub cannot be downloaded.
    """
    if config.init.startswith(PREFIX):
        check_settings(config.init, backbone=config.backbone, mean=config.mean, std=config.std)
    encoder = Encoder(_backbone_of(config), config)
    _check_input(encoder)
    if config.init == "random":
        return encoder
    source_hw = None
    if config.init == "timm":
        source, source_hw = read_hub(config.backbone), hub_hw(config.backbone)
    elif config.init.startswith(PREFIX):
        source = read_package(config.init, encoder.backbone.state_dict())
    else:
        source, source_hw = read_weights(config.init), read_input_hw(split_source(config.init)[0])
    source_hw = config.init_hw or source_hw
    load_weights(encoder.backbone, source, name=config.backbone, origin=config.init, source_hw=source_hw)
    return encoder


def _backbone_of(config: EncoderConfig) -> Any:
    return build_backbone(
        config.backbone, input_hw=config.input_hw, zero_init_last=config.zero_init_last, drop_path=config.drop_path
    )


def _check_input(encoder: Encoder) -> None:
    """Run the encoder on a frame of `input_hw`, and refuse a backbone that fails."""
    config, was_training = encoder.config, encoder.training
    try:
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, *config.input_hw))
    except InputError:
        raise
    except Exception as error:  # timm models raise errors of any type
        height, width = config.input_hw
        raise InputError(
            f"{config.backbone} takes no frames of encoder.input_hw {height}x{width} ({reason(error).rstrip('.')}); "
            f"{advise_size(encoder.backbone, config.input_hw)}"
        ) from error
    encoder.train(was_training)


def unused_weights(encoder: Encoder) -> list[nn.Parameter]:
    """Return the weights that no feature depends on, such as a norm that timm applies after its own pooling."""
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    if not weights:
        return []
    was_training = encoder.training
    with torch.enable_grad():
        out = encoder.eval()(torch.zeros(1, 3, *encoder.config.input_hw, device=weights[0].device))
        total = out.dense.sum() if out.cls is None else out.dense.sum() + out.cls.sum()
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    encoder.train(was_training)
    return [weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is None]


def save_encoder(
    encoder: Encoder, folder: Path, *, extra: dict[str, Any], state: dict[str, Tensor] | None = None
) -> None:
    """Write an encoder folder: weights, and `encoder.json` with config, digest and `extra` (a training record).

    The weights are `state`, or by default those of the encoder's backbone.

    Raises:
        ResourceError: the disk is full or cannot be written to; an existing encoder is left as it was.
    """
    held = encoder.backbone.state_dict() if state is None else state
    state = {name: value.cpu().contiguous() for name, value in held.items()}
    about = {
        "schema": SCHEMA,
        "config": dataclasses.asdict(encoder.config),
        "feature_dim": encoder.feature_dim,
        "digest": weights_digest(state),
        "extra": extra,
    }
    write_folder(folder, state, about)


def read_encoder(folder: Path) -> Encoder:
    """Read an encoder that `save_encoder` wrote, and set it to eval mode.

    Reading does not change torch's random generators.

    Raises:
        InputError: the folder is no encoder folder, its schema is unknown, or the weights do not match `encoder.json`.
    """
    about = read_about(folder)
    config = config_from_json(about["config"])
    state = read_state(folder, digest=about["digest"])
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(_backbone_of(config), config)
    load_weights(encoder.backbone, state, name=config.backbone, origin=str(folder), source_hw=config.input_hw)
    return encoder.eval()
