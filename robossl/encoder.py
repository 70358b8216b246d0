"""Encoder: a timm backbone whose features have names: pooled, cls, dense map, and keypoints of that map."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import glob
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robossl.durable import share, sync
from robossl.errors import InputError, ResourceError, reason
from robossl.ranges import check_positive, check_range
from robossl.weights import load_weights, read_hub, read_weights, weights_digest

SCHEMA = "robossl.encoder/1"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESNETS = ("resnet",)  # timm modules whose models take zero_init_last
_TRANSFORMERS = ("vision_transformer", "deit", "eva")  # ... take img_size and dynamic_img_size


PositionMatrix = Callable[[int, int], Tensor]
"""Weights (target, source) that resize learned positions along one axis."""


class Features(NamedTuple):
    """What an encoder says about a batch of frames."""

    pooled: Float[Tensor, "b d"]  # mean over positions: global average (ResNet), mean of patch tokens (ViT)
    dense: Float[Tensor, "b c h w"]  # last feature map; a ViT's patch tokens, final norm applied, on their grid
    cls: Float[Tensor, "b d"] | None  # class token after the final norm; None where the backbone has none


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Which backbone, from which weights, and how served frames reach it."""

    backbone: str = "resnet18"  # any timm name
    init: str = "random"  # random | timm (its hub) | PATH or PATH#PREFIX of a checkpoint, see weights.py
    input_hw: tuple[int, int] = (224, 224)  # served and evaluated frames are resized to this, whole
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    zero_init_last: bool = True  # ResNets only: every block starts as the identity (arXiv:1706.02677)
    drop_path: float = 0.0  # rate of the last block; it rises linearly from 0

    def __post_init__(self) -> None:
        check_range(1, input_hw=min(self.input_hw))
        check_positive(std=min(self.std))
        check_range(0, 1, drop_path=self.drop_path)


class Encoder(nn.Module):
    """A timm backbone without its classifier; call it on normalised pixels, which `preprocess` makes."""

    backbone: Any  # a timm model: they share attributes that nn.Module does not declare

    def __init__(self, backbone: nn.Module, config: EncoderConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.feature_dim = int(self.backbone.num_features)
        self.has_cls = getattr(backbone, "cls_token", None) is not None
        self.has_grid = getattr(backbone, "dynamic_img_size", False)  # of positions, resized to the pixels'
        self.num_prefix_tokens = int(getattr(self.backbone, "num_prefix_tokens", 0))
        self.position_matrix: PositionMatrix = functools.partial(resize_matrix, mode="bicubic")

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Features:
        """Features of normalised pixels of any size the backbone takes (a ViT: multiples of its patch)."""
        resized = self.has_grid and tuple(pixels.shape[-2:]) != self.config.input_hw
        with _ResizeByMatrix(self.position_matrix) if resized else contextlib.nullcontext():
            out: Tensor = self.backbone.forward_features(pixels)
        if out.ndim == 4:
            dense = out if out.shape[1] == self.feature_dim else out.permute(0, 3, 1, 2)
            return Features(pooled=dense.mean((2, 3)), dense=dense, cls=None)
        patches = out[:, self.num_prefix_tokens :]
        h, w = self._grid(pixels.shape[-2], pixels.shape[-1])
        dense = patches.transpose(1, 2).reshape(-1, self.feature_dim, h, w)
        return Features(pooled=patches.mean(1), dense=dense, cls=out[:, 0] if self.has_cls else None)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        patch_h, patch_w = self.backbone.patch_embed.patch_size
        return height // int(patch_h), width // int(patch_w)

    def preprocess(self, frames: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 H W"]:
        """Normalised pixels of whole frames, squashed to `input_hw` by antialiased bilinear resize."""
        pixels = frames.permute(0, 3, 1, 2).to(dtype=torch.float32) / 255
        return self.normalise(F.interpolate(pixels, self.config.input_hw, mode="bilinear", antialias=True))

    def normalise(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels in 0..1 to what the backbone expects."""
        mean = torch.tensor(self.config.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.config.std, device=pixels.device).view(3, 1, 1)
        return (pixels - mean) / std


class _ResizeByMatrix(TorchFunctionMode):
    """Learned positions resized by matrix products: on CUDA, torch's own antialiased resize has no exact backward."""

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
        rows = self.matrix(positions.shape[-2], height).to(positions)
        columns = self.matrix(positions.shape[-1], width).to(positions)
        with torch.autocast(positions.device.type, enabled=False):
            return rows @ positions @ columns.T


def resize_matrix(source: int, target: int, *, mode: Literal["bilinear", "bicubic"]) -> Float[Tensor, "target source"]:
    """The antialiased resize of one axis as a matrix: what it does to the identity."""
    identity = torch.eye(source)[None, None]
    return F.interpolate(identity, (target, source), mode=mode, antialias=True)[0, 0]


def spatial_softmax(dense: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2"]:
    """Expected (x, y) of each channel under its softmax over positions (Finn et al., arXiv:1509.06113).

    Coordinates run over [-1, 1] of the frame, x to the right and y down, at the centres of the cells.
    """
    b, c, h, w = dense.shape
    weight = dense.flatten(2).float().softmax(-1).view(b, c, h, w)
    x = (2 * torch.arange(w, device=dense.device) + 1) / w - 1
    y = (2 * torch.arange(h, device=dense.device) + 1) / h - 1
    return torch.stack([(weight.sum(2) * x).sum(-1), (weight.sum(3) * y).sum(-1)], dim=-1)


def named_outputs(features: Features) -> dict[str, Tensor]:
    """What an encoder gives the world, in fp32, in this order: pooled, cls if there is one, dense, keypoints."""
    dense = features.dense.float()
    cls = {} if features.cls is None else {"cls": features.cls.float()}
    return {"pooled": features.pooled.float(), **cls, "dense": dense, "keypoints": spatial_softmax(dense)}


def build_encoder(config: EncoderConfig) -> Encoder:
    """Make an encoder and give it its initial weights; random ones come from torch's global generator.

    Raises:
        InputError: unknown backbone, sizes that do not fit it, a checkpoint that does not fit it.
        ResourceError: hub weights that cannot be downloaded.
    """
    encoder = Encoder(_build_backbone(config), config)
    if config.init == "random":
        return encoder
    source = read_hub(config.backbone) if config.init == "timm" else read_weights(config.init)
    load_weights(encoder.backbone, source, name=config.backbone, origin=config.init)
    return encoder


def unused_weights(encoder: Encoder) -> list[nn.Parameter]:
    """Weights that no feature depends on, such as a norm that timm applies after its own pooling: they never train."""
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


def _build_backbone(config: EncoderConfig) -> Any:
    architecture = _check_name(config.backbone)
    family = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    extra: dict[str, Any] = {"zero_init_last": config.zero_init_last} if family in _RESNETS else {}
    if family in _TRANSFORMERS:
        extra = {"img_size": config.input_hw, "dynamic_img_size": True}
    if config.drop_path:
        extra["drop_path_rate"] = config.drop_path
    model: Any = timm.create_model(config.backbone, pretrained=False, num_classes=0, **extra)
    if family in _TRANSFORMERS:
        _check_patches(config, model.patch_embed.patch_size)
    return model


def _check_name(backbone: str) -> str:
    """The architecture of a timm name, which may end in the tag of its hub weights: resnet18.a1_in1k."""
    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        raise InputError(
            f"unknown backbone {backbone!r}; nearest: {', '.join(near) or 'resnet18, resnet50, vit_small_patch16_224'} "
            "(any timm model name: https://huggingface.co/timm)"
        )
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and backbone not in tagged:
        raise InputError(f"unknown weights {backbone!r}; choose {', '.join([architecture, *tagged])}")
    return architecture


def _check_patches(config: EncoderConfig, patch_hw: tuple[int, int]) -> None:
    if any(size % patch for size, patch in zip(config.input_hw, patch_hw, strict=True)):
        raise InputError(
            f"input_hw {config.input_hw} does not divide into the {patch_hw[0]}x{patch_hw[1]} patches of "
            f"{config.backbone}; choose multiples"
        )


def save_encoder(encoder: Encoder, folder: Path, *, extra: dict[str, Any]) -> None:
    """Write `encoder.safetensors` and `encoder.json` (config, digest, `extra`), aside, then renamed.

    Raises:
        ResourceError: the disk is full or not writable; an encoder already there is untouched.
    """
    state = {name: value.cpu().contiguous() for name, value in encoder.backbone.state_dict().items()}
    about = {
        "schema": SCHEMA,
        "config": dataclasses.asdict(encoder.config),
        "feature_dim": encoder.feature_dim,
        "digest": weights_digest(state),
        "extra": extra,
    }
    aside, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        save_file(state, aside / "encoder.safetensors")
        share(aside / "encoder.safetensors")
        (aside / "encoder.json").write_text(json.dumps(about, indent=2) + "\n")
        for path in (*aside.iterdir(), aside):
            sync(path)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        aside.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
        raise ResourceError(f"could not write {folder} ({reason(error)}); make room and run again") from error
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.[0-9]*"):  # the old one, and of saves that were killed
        shutil.rmtree(left, ignore_errors=True)


def load_encoder(folder: Path) -> Encoder:
    """Read an encoder that `save_encoder` wrote, in eval mode; torch's generators are left as they were.

    Raises:
        InputError: not an encoder folder, an unknown schema, or weights that are not those of `encoder.json`.
    """
    about = read_about(folder)
    config = config_from_json(about["config"])
    try:
        state = load_file(folder / "encoder.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder}: cannot read encoder.safetensors ({reason(error)}); resume its run, which writes it again"
        ) from error
    if weights_digest(state) != about["digest"]:
        raise InputError(f"{folder}: encoder.safetensors is not what encoder.json describes (digest differs)")
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(_build_backbone(config), config)
    load_weights(encoder.backbone, state, name=config.backbone, origin=str(folder))
    return encoder.eval()


def read_about(folder: Path) -> dict[str, Any]:
    """The contents of `encoder.json`, its schema checked.

    Raises:
        InputError: there is none, it is damaged, or of an unknown schema.
    """
    path = folder / "encoder.json"
    if not path.is_file():
        raise InputError(f"{folder} is not an encoder folder (no encoder.json); pass RUN/encoder of a run")
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        got = about.get("schema")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"cannot read {path} ({reason(error)}); resume its run, which writes it again") from error
    if got != SCHEMA:
        raise InputError(f"{path} has schema {got!r}, this robossl reads {SCHEMA!r}; install the one that wrote it")
    if missing := {"config", "digest", "extra"} - about.keys():
        raise InputError(f"{path} has no {', '.join(sorted(missing))}; resume its run, which writes it again")
    return about


def config_from_json(values: dict[str, Any]) -> EncoderConfig:
    """An `EncoderConfig` from json, where tuples are lists."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return EncoderConfig(**plain)
    except TypeError as error:
        raise InputError(
            f"an encoder's config cannot be read ({reason(error)}); was it written by a newer robossl?"
        ) from error
