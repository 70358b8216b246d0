"""Layers of a backbone, from the stem on, as timm's `group_matcher` orders them; and freezing of the first ones."""

from __future__ import annotations

from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from robossl.errors import InputError


def layer_numbers(backbone: Any, *, name: str, stages: bool = False) -> dict[str, int]:
    """Return the number of the layer that each parameter belongs to, by the parameter's name.

    The stem is 0. The other layers are blocks, or stages (groups of blocks with one resolution). A norm or convolution
    after the last block belongs to the last layer.

    Args:
        backbone: A timm model.
        name: Name of the backbone, for messages.
        stages: Count stages instead of blocks; they are the same in a ViT.

    Raises:
        InputError: the backbone does not say what its layers are.
    """
    from timm.models import group_parameters

    matcher = getattr(backbone, "group_matcher", None)
    numbers: dict[str, int] = group_parameters(backbone, matcher(coarse=stages), reverse=True) if matcher else {}
    if max(numbers.values(), default=0) == 0:
        raise InputError(
            f"{name} does not say what its layers are (timm's group_matcher); leave out optim.layer_decay and "
            "encoder.frozen_stages, or choose another backbone, such as resnet18"
        )
    return numbers


def held_modules(backbone: Any, *, stages: int | None, norms: bool, name: str) -> tuple[str, ...]:
    """Freeze the first stages; return the names of the modules that the caller must keep in eval mode.

    These are the frozen ones, if `stages` is not None, and with `norms` all batch-norms, whose weights still train.

    Raises:
        InputError: for the reasons of `freeze_stages`, or there is no batch-norm.
    """
    frozen = () if stages is None else freeze_stages(backbone, stages, name=name)
    if not norms:
        return frozen
    found = tuple(place for place, module in backbone.named_modules() if isinstance(module, _BatchNorm))
    if not found:
        raise InputError(f"{name} has no batch-norm; set encoder.frozen_norm_stats to false")
    return (*frozen, *found)


def freeze_stages(backbone: Any, stages: int, *, name: str) -> tuple[str, ...]:
    """Freeze the weights of the stem and of the first `stages` stages; return the names of the frozen modules.

    The caller keeps these modules in eval mode, so that their batch-norms use and keep their running statistics.

    Raises:
        InputError: nothing would be left to train, or the backbone does not say what its layers are.
    """
    numbers = layer_numbers(backbone, name=name, stages=True)
    last = max(numbers.values())
    if stages >= last:
        raise InputError(
            f"encoder.frozen_stages {stages} leaves nothing of {name} to train, which has a stem and {last} stages; "
            f"choose 0 (the stem) to {last - 1}"
        )
    frozen = {weight for weight, number in numbers.items() if number <= stages}
    for weight, value in backbone.named_parameters():
        if weight in frozen:
            value.requires_grad_(False)
    return tuple(place for place, module in backbone.named_modules() if _is_within(place, module, frozen))


def _is_within(place: str, module: Any, names: set[str]) -> bool:
    own = [f"{place}.{weight}" for weight, _ in module.named_parameters()]
    return bool(own) and names.issuperset(own)
