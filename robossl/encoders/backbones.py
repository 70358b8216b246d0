"""Build backbones: timm models, chosen by name, for an input size. A failure raises an error with a short message.

Importing timm takes seconds, so it is imported only when a model is built. So a wrong key of a configuration is refused
without waiting for this import.
"""

from __future__ import annotations

import difflib
from typing import Any

from robossl.common.plugins import Registry
from robossl.common.suggest import suggest_name
from robossl.errors import InputError, reason


def _why_unregistered(function: Any) -> str:
    import timm

    return "" if timm.is_model(getattr(function, "__name__", "")) else "must be registered with timm"


# Backbones that plugins add to timm's models. Each is a function that `timm.models.register_model` registers on import.
BACKBONES = Registry(
    "backbone",
    group="robossl.backbones",
    built_in={},
    check=_why_unregistered,
)
_RESNETS = ("resnet",)  # timm modules whose models accept zero_init_last
_TRANSFORMERS = ("vision_transformer", "deit", "eva")  # timm modules whose models accept img_size and dynamic_img_size
_SETTINGS = {"img_size": "encoder.input_hw", "drop_path_rate": "encoder.drop_path"}  # timm's name: our setting's name


def build_backbone(name: str, *, input_hw: tuple[int, int], zero_init_last: bool, drop_path: float) -> Any:
    """Make a timm model without its classifier, with random weights.

    Raises:
        InputError: no model has that name, or it cannot be built with these settings.
    """
    import timm

    architecture = _resolve_architecture(name)
    family = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    extra: dict[str, Any] = {"zero_init_last": zero_init_last} if family in _RESNETS else {}
    if family in _TRANSFORMERS:
        extra = {"img_size": input_hw, "dynamic_img_size": True}
    if drop_path:
        extra["drop_path_rate"] = drop_path
    try:
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, **extra)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        settings = " and ".join(f"{_SETTINGS[key]} {extra[key]}" for key in extra if key in _SETTINGS) or "its defaults"
        raise InputError(
            f"timm cannot build {name} with {settings} ({reason(error)}); change that, or choose another backbone"
        ) from error
    if family in _TRANSFORMERS:
        _check_patches(name, input_hw, model.patch_embed.patch_size)
    return model


def hub_hw(name: str) -> tuple[int, int] | None:
    """Return the input size (height, width) of a model's weights on timm's hub; None if timm does not state it."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return None if config is None else (config.input_size[-2], config.input_size[-1])


def advise_size(backbone: Any, input_hw: tuple[int, int]) -> str:
    """Return advice, for an error message, on what to do if a backbone cannot take an input size."""
    height, width = backbone.default_cfg["input_size"][-2:]
    own = f"set it to [{height}, {width}], the model's own size, or " if (height, width) != input_hw else ""
    return f"{own}choose another backbone, such as resnet18 (any size) or vit_small_patch16_224 (multiples of 16)"


def unknown_backbone(name: str) -> str:
    """Return the error message for an unknown backbone name. It suggests only the nearest of timm's many names."""
    import timm

    near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3, cutoff=0.5)
    return suggest_name("backbone", name, near or ["resnet18", "resnet50", "vit_small_patch16_224"])


def _resolve_architecture(backbone: str) -> str:
    """Return a timm name without the tag of its hub weights, such as resnet18 for resnet18.a1_in1k.

    Raises:
        InputError: timm has no such architecture or tag.
    """
    import timm

    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture) and architecture in BACKBONES:
        BACKBONES.resolve(architecture)
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


def _check_patches(name: str, input_hw: tuple[int, int], patch_hw: tuple[int, int]) -> None:
    if any(size % patch for size, patch in zip(input_hw, patch_hw, strict=True)):
        raise InputError(
            f"input_hw {input_hw} does not divide into the {patch_hw[0]}x{patch_hw[1]} patches of {name}; "
            "choose multiples"
        )
