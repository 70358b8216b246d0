"""METHODS: every pretraining method by name; resolved at use, so that naming them imports no torch."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from robossl.errors import InputError
from robossl.names import unknown

if TYPE_CHECKING:
    from robossl.method import MethodConfig

METHODS = {
    "atc": "robossl.methods.atc:ATCConfig",
    "barlow_twins": "robossl.methods.barlow_twins:BarlowTwinsConfig",
    "byol": "robossl.methods.byol:BYOLConfig",
    "cpc": "robossl.methods.cpc:CPCConfig",
    "cpc_rows": "robossl.methods.cpc_rows:CPCRowsConfig",
    "dino": "robossl.methods.dino:DINOConfig",
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
}


def resolve_method(name: str) -> type[MethodConfig]:
    """The configuration class of a method.

    Raises:
        InputError: no method has that name.
    """
    if name not in METHODS:
        raise InputError(unknown("method", name, METHODS))
    config: type[MethodConfig] = pkgutil.resolve_name(METHODS[name])
    return config
