"""The configuration of an encoder: the backbone, its initial weights, and the preprocessing of served frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robossl.common.checks import check_positive, check_range
from robossl.errors import InputError, reason

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


def config_from_json(values: dict[str, Any]) -> EncoderConfig:
    """Make an `EncoderConfig` from JSON, in which tuples are lists."""
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return EncoderConfig(**plain)
    except TypeError as error:
        raise InputError(
            f"an encoder's config cannot be read ({reason(error)}); was it written by a newer robossl?"
        ) from error
