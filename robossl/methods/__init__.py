"""METHODS: every pretraining method by name; resolved at use, so that naming them imports no torch."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from robossl.errors import InputError
from robossl.names import unknown

if TYPE_CHECKING:
    from robossl.method import MethodConfig

METHODS = {
    "dino": "robossl.methods.dino:DINOConfig",
    "pixcontrast": "robossl.methods.pixcontrast:PixContrastConfig",
    "pixpro": "robossl.methods.pixpro:PixProConfig",
    "simclr": "robossl.methods.simclr:SimCLRConfig",
    "simsiam": "robossl.methods.simsiam:SimSiamConfig",
    "swav": "robossl.methods.swav:SwAVConfig",
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
