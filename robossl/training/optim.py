"""Optimizers with the conventions of each recipe: weight decay, LARS, scaling of the learning rate with the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robossl.common.checks import check_positive, check_range
from robossl.common.sharding import is_sharded
from robossl.encoders.layers import layer_numbers
from robossl.errors import InputError
from robossl.methods.base import Method, encoders_of
from robossl.methods.parts.schedule import cosine, warmup_cosine


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """Settings of the optimizer. Defaults are those of SimSiam (arXiv:2011.10566, baseline settings of section 3)."""

    name: Literal["sgd", "adamw", "lars"] = "sgd"
    lr: float = 0.05  # learning rate, which `lr_scaling` then scales
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"  # peak rate: lr * batch / 256, lr * sqrt(batch), or lr
    momentum: float = 0.9  # momentum of sgd and lars
    betas: tuple[float, float] = (0.9, 0.999)  # betas of adamw
    weight_decay: float = 1e-4
    decay: Literal["all", "matrices"] = "all"  # what gets decay and LARS; matrices: all but biases and norm scales
    trust_coefficient: float = 1e-3  # factor of the LARS ratio
    lars_momentum: Literal["inside", "outside"] = "outside"  # inside: the velocity includes lr, as in SimCLR's code
    weight_decay_end: float | None = None  # final weight decay, reached along half a cosine (DINO); None: constant
    bias_lr: float | None = None  # lr of biases and norm scales, before scaling (Barlow Twins); None: `lr`
    # Factor of the learning rate from each layer of the encoder to the layer before it (BEiT, MAE); 1: equal rates.
    layer_decay: float = 1.0
    warm_head_steps: int = 0  # first steps, in which only the heads are trained (LP-FT, arXiv:2202.10054)
    warmup_steps: int = 0
    warmup_start: float = 0.0  # lr at the start of the warm-up, as a fraction of the peak
    final_lr: float = 0.0  # lr at the end of the cosine, as a fraction of the peak
    clip_grad_norm: float | None = None
    clip_over: Literal["all", "tensor"] = "all"  # what is clipped: the norm of all gradients, or of each tensor (DINO)

    def __post_init__(self) -> None:
        check_positive(
            lr=self.lr,
            trust_coefficient=self.trust_coefficient,
            clip_grad_norm=self.clip_grad_norm,
            layer_decay=self.layer_decay,
        )
        check_range(0, 1, momentum=self.momentum, warmup_start=self.warmup_start, layer_decay=self.layer_decay)
        check_range(
            0,
            weight_decay=self.weight_decay,
            weight_decay_end=self.weight_decay_end,
            bias_lr=self.bias_lr,
            warmup_steps=self.warmup_steps,
            warm_head_steps=self.warm_head_steps,
            final_lr=self.final_lr,
        )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be 0 or more and less than 1, got {self.betas}")


class Lars(torch.optim.Optimizer):
    """LARS (arXiv:1708.03888): SGD that scales the step of each tensor w by the ratio trust * |w| / |g + wd * w|.

    Here g is the gradient, wd the weight decay, and g + wd * w the update. If |w| or the norm of the update is 0, the
    ratio is 1. Parameter groups with `adapt=False` use plain SGD; the caller must set their weight decay to 0. With
    `momentum_lr="inside"` the velocity is m * v + lr * ratio * update, as in SimCLR's code, so a change of the learning
    rate affects new gradients only. With `"outside"`, the velocity is multiplied by lr afterwards, as in torch's SGD.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        trust_coefficient: float,
        momentum_lr: Literal["inside", "outside"],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": 0.0,
            "trust": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, {**defaults, "inside": momentum_lr == "inside"})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, group)

    def _step_one(self, weight: Tensor, group: dict[str, Any]) -> None:
        update = weight.grad.add(weight, alpha=group["weight_decay"])  # type: ignore[union-attr]
        if group["adapt"]:
            weight_norm, update_norm = weight.norm(), update.norm()
            ratio = group["trust"] * weight_norm / update_norm
            update.mul_(torch.where((weight_norm > 0) & (update_norm > 0), ratio, torch.ones_like(ratio)))
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        lr = group["lr"]
        velocity = state["velocity"].mul_(group["momentum"]).add_(update, alpha=lr if group["inside"] else 1.0)
        weight.add_(velocity, alpha=-1.0 if group["inside"] else -lr)


def peak_lr(config: OptimConfig, *, batch_size: int) -> float:
    """Return the peak learning rate for a global batch size.

    Examples:
        >>> peak_lr(OptimConfig(lr=0.05), batch_size=512)
        0.1
    """
    scale = {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size), "none": 1.0}[config.lr_scaling]
    return config.lr * scale


def lr_factor(config: OptimConfig, *, step: int, steps: int) -> float:
    """Return the learning rate of a step as a fraction of the peak; the run has `steps` steps."""
    return warmup_cosine(
        step, steps=steps, warmup_steps=config.warmup_steps, start=config.warmup_start, end=config.final_lr
    )


def build_optimizer(config: OptimConfig, method: Method, *, batch_size: int) -> torch.optim.Optimizer:
    """Build the optimizer of a method; its parameters are grouped by weight decay and by learning-rate schedule.

    Raises:
        InputError: `layer_decay` is less than 1, and the backbone does not say what its layers are.
    """
    lr = peak_lr(config, batch_size=batch_size)
    groups = _param_groups(config, method)
    fused = not is_sharded(method)  # torch has no fused SGD for sharded weights
    match config.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=config.betas, fused=fused)
        case "lars":
            return Lars(
                groups,
                lr=lr,
                momentum=config.momentum,
                trust_coefficient=config.trust_coefficient,
                momentum_lr=config.lars_momentum,
            )


def _param_groups(config: OptimConfig, method: nn.Module) -> list[dict[str, Any]]:
    constant_prefixes = getattr(method, "constant_lr", ())
    scales = layer_scales(config, method)
    groups: dict[tuple[bool, bool, bool, float], list[Tensor]] = {}
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            decays = config.decay == "all" or weight.ndim > 1
            constant = name.startswith(tuple(constant_prefixes)) if constant_prefixes else False
            full = weight.ndim > 1 or config.bias_lr is None
            groups.setdefault((decays, constant, full, scales.get(weight, 1.0)), []).append(weight)
    out: list[dict[str, Any]] = []
    for (decays, constant, full, scale), weights in sorted(groups.items(), key=lambda item: item[0], reverse=True):
        group = {
            "params": weights,
            "weight_decay": config.weight_decay if decays else 0.0,
            "decays": decays,
            "constant_lr": constant,
            "lr_factor": scale * (1.0 if full or config.bias_lr is None else config.bias_lr / config.lr),
        }
        out.append(group | ({"adapt": decays} if config.name == "lars" else {}))
    return out


def layer_scales(config: OptimConfig, method: nn.Module) -> dict[Tensor, float]:
    """Return the factor of the learning rate of each weight in an encoder: layer_decay ** (layers after it).

    The last layer of the encoder and all weights outside of it have the full rate. The layers and factors are those of
    timm's `param_groups_layer_decay`, after BEiT (arXiv:2106.08254) and MAE (arXiv:2111.06377, appendix A.2). Without
    a decay the dict is empty.

    Raises:
        InputError: the backbone does not say what its layers are.
    """
    scales: dict[Tensor, float] = {}
    for encoder in encoders_of(method) if config.layer_decay < 1 else []:
        numbers = layer_numbers(encoder.backbone, name=encoder.config.backbone)
        last = max(numbers.values())
        weights = encoder.backbone.named_parameters()
        scales |= {weight: config.layer_decay ** (last - numbers[name]) for name, weight in weights}
    return scales


def set_rates(
    optimizer: torch.optim.Optimizer, config: OptimConfig, *, step: int, steps: int, batch_size: int
) -> float:
    """Set every group's learning rate and weight decay for this step; return the scheduled learning rate."""
    peak = peak_lr(config, batch_size=batch_size)
    factor = lr_factor(config, step=step, steps=steps)
    decay, end = config.weight_decay, config.weight_decay_end
    if end is not None:
        decay = cosine(decay, end, progress=step / steps)
    for group in optimizer.param_groups:
        group["lr"] = peak * group["lr_factor"] * (1.0 if group["constant_lr"] else factor)
        group["weight_decay"] = decay if group["decays"] else 0.0
    return peak * factor


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD a momentum of zeros for weights that get their first gradient after other weights of their group.

    torch's fused SGD fails if only some of a group's momentum buffers are missing. With zeros, the step is the same.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        trained = [weight for weight in group["params"] if weight.grad is not None]
        missing = [weight for weight in trained if "momentum_buffer" not in optimizer.state.get(weight, {})]
        if group["momentum"] and len(missing) < len(trained):
            for weight in missing:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def clip_gradients(method: nn.Module, config: OptimConfig) -> None:
    """Clip the norm of all gradients together, or of each tensor, to `clip_grad_norm`, unless this is None."""
    if config.clip_grad_norm is None:
        return
    weights = [weight for weight in method.parameters() if weight.grad is not None]
    for part in [weights] if config.clip_over == "all" else [[weight] for weight in weights]:
        nn.utils.clip_grad_norm_(part, config.clip_grad_norm)
