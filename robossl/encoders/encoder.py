"""The encoder: a timm backbone with named features (pooled feature, class token, dense feature map, keypoints)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robossl.common.checks import check_positive, check_range
from robossl.encoders.backbones import advise_size, build_backbone, hub_hw
from robossl.encoders.encoder_files import SCHEMA, read_about, read_input_hw, read_state, write_folder
from robossl.encoders.layers import held_modules
from robossl.encoders.pip_weights import PREFIX, check_settings, read_package
from robossl.encoders.positions import token_grid
from robossl.encoders.weight_names import load_weights
from robossl.encoders.weights import read_hub, read_weights, split_source, weights_digest
from robossl.errors import InputError, reason

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


PositionMatrix = Callable[[int, int], Tensor]
"""Returns the matrix (target, source) that resizes learned positions along one axis."""


class Features(NamedTuple):
    """Features of a batch of frames."""

    pooled: Float[Tensor, "b d"]  # mean over positions: global average (ResNet), mean of patch tokens (ViT)
    dense: Float[Tensor, "b c h w"]  # last feature map; for a ViT, the grid of its patch tokens after the final norm
    cls: Float[Tensor, "b d"] | None  # class token after the final norm; None if there is no class token


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The backbone, its initial weights, and the preprocessing of served frames."""

    backbone: str = "resnet18"  # name of a timm model
    # random, timm (weights from timm's hub), pip:NAME (weights in a package, docs/starting_points.md), or a checkpoint:
    # PATH or PATH#PREFIX (weights.py)
    init: str = "random"
    # Input size (height, width) that the weights of `init` were trained at.
    # This size is needed only if a checkpoint has position embeddings but no encoder.json.
    init_hw: tuple[int, int] | None = None
    input_hw: tuple[int, int] = (224, 224)  # height, width; serving and evaluation resize whole frames to it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    zero_init_last: bool = True  # whether every block of a ResNet starts as the identity (arXiv:1706.02677)
    drop_path: float = 0.0  # stochastic depth rate of the last block; the rates rise linearly from 0 in the first block
    # Freeze the stem and this many stages (blocks of a ViT) after it, with their batch-norm statistics; 0: the stem.
    frozen_stages: int | None = None
    frozen_norm_stats: bool = False  # whether all batch-norms use and keep their running statistics, but train scales

    def __post_init__(self) -> None:
        check_range(1, input_hw=min(self.input_hw))
        check_positive(std=min(self.std))
        check_range(0, 1, drop_path=self.drop_path)
        check_range(0, frozen_stages=self.frozen_stages)
        if self.init_hw is not None and self.init == "random":
            raise InputError(
                "encoder.init_hw is the input size of a checkpoint, but encoder.init is random; leave it out"
            )


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
        with _ResizeByMatrix(self.position_matrix) if resized else contextlib.nullcontext():
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


class _ResizeByMatrix(TorchFunctionMode):
    """A context in which `F.interpolate` resizes learned position embeddings by matrix products.

    This is needed on CUDA, where the backward pass of torch's antialiased resize is not deterministic.
    """

    def __init__(self, matrix: PositionMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.interpolate or kwargs.get("mode") != "bicubic" or not kwargs.get("antialias"):
            return func(*args, **kwargs)
        (height, width), positions = kwargs["size"], args[0]
        with positions.device:  # a matrix that is made on the CPU would be copied, and the program would wait for that
            rows = self.matrix(positions.shape[-2], height).to(positions)
            columns = self.matrix(positions.shape[-1], width).to(positions)
        with torch.autocast(positions.device.type, enabled=False):
            return rows @ positions @ columns.T


def resize_matrix(source: int, target: int, *, mode: Literal["bilinear", "bicubic"]) -> Float[Tensor, "target source"]:
    """Return the matrix that resizes one axis with antialiasing; it is the resized identity matrix."""
    identity = torch.eye(source)[None, None]
    return F.interpolate(identity, (target, source), mode=mode, antialias=True)[0, 0]


def spatial_softmax(dense: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2"]:
    """Return a keypoint (x, y) for each channel: the mean of the cells' centres, weighted by the channel's softmax.

    The feature map spans [-1, 1] on both axes, with x to the right and y down (arXiv:1509.06113).
    """
    b, c, h, w = dense.shape
    weight = dense.flatten(2).float().softmax(-1).view(b, c, h, w)
    x = (2 * torch.arange(w, device=dense.device) + 1) / w - 1
    y = (2 * torch.arange(h, device=dense.device) + 1) / h - 1
    return torch.stack([(weight.sum(2) * x).sum(-1), (weight.sum(3) * y).sum(-1)], dim=-1)


def named_outputs(features: Features) -> dict[str, Tensor]:
    """Return fp32 features by output name, in this order: pooled, cls if there is a class token, dense, keypoints."""
    dense = features.dense.float()
    cls = {} if features.cls is None else {"cls": features.cls.float()}
    return {"pooled": features.pooled.float(), **cls, "dense": dense, "keypoints": spatial_softmax(dense)}


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


def config_from_json(values: dict[str, Any]) -> EncoderConfig:
    """Make an `EncoderConfig` from JSON, in which tuples are lists."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return EncoderConfig(**plain)
    except TypeError as error:
        raise InputError(
            f"an encoder's config cannot be read ({reason(error)}); was it written by a newer robossl?"
        ) from error
