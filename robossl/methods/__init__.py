"""METHODS: the pretraining methods by name. This module does not import torch."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from robossl.common.plugins import Registry
from robossl.common.yaml_reader import why_unreadable

if TYPE_CHECKING:
    from robossl.methods.base import MethodConfig


def _check(found: Any) -> str:
    if not (isinstance(found, type) and is_dataclass(found) and callable(getattr(found, "build", None))):
        return "must be a frozen dataclass with build(encoder)"
    if not found.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "must be frozen: @dataclass(frozen=True, slots=True)"
    if "name" in {field.name for field in fields(found)}:
        return "has a field `name`, which in a configuration is the name of the method; rename the field"
    return why_unreadable(found)


METHODS = Registry(
    "method",
    group="robossl.methods",
    check=_check,
    built_in={
        "atc": "robossl.methods.atc:ATCConfig",
        "barlow_twins": "robossl.methods.barlow_twins:BarlowTwinsConfig",
        "byol": "robossl.methods.byol:BYOLConfig",
        "cpc": "robossl.methods.cpc:CPCConfig",
        "cpc_rows": "robossl.methods.cpc_rows:CPCRowsConfig",
        "dino": "robossl.methods.dino:DINOConfig",
        "distill": "robossl.methods.distill:DistillConfig",
        "looc": "robossl.methods.looc:LooCConfig",
        "moco": "robossl.methods.moco:MoCoConfig",
        "moco_v3": "robossl.methods.moco_v3:MoCoV3Config",
        "pixcontrast": "robossl.methods.pixcontrast:PixContrastConfig",
        "pixpro": "robossl.methods.pixpro:PixProConfig",
        "r3m": "robossl.methods.r3m:R3MConfig",
        "simclr": "robossl.methods.simclr:SimCLRConfig",
        "simsiam": "robossl.methods.simsiam:SimSiamConfig",
        "swav": "robossl.methods.swav:SwAVConfig",
        "tcn": "robossl.methods.tcn:TCNConfig",
        "vicreg": "robossl.methods.vicreg:VICRegConfig",
        "vip": "robossl.methods.vip:VIPConfig",
    },
)


def resolve_method(name: str) -> type[MethodConfig]:
    """Return the configuration class of a method.

    Raises:
        InputError: no method has that name, or it is a plugin that cannot be used.
    """
    config: type[MethodConfig] = METHODS.resolve(name)
    return config
