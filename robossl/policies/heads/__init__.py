"""HEADS: the ways in which a policy reads an encoder's features, by name. This module does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robossl.common.plugins import Registry

if TYPE_CHECKING:
    from robossl.policies.heads.head import PolicyHead


def _check(found: Any) -> str:
    from robossl.policies.heads.head import PolicyHead

    is_head = isinstance(found, type) and issubclass(found, PolicyHead)
    return "" if is_head else "must be a subclass of robossl.policies.heads.head.PolicyHead"


HEADS = Registry(
    "head",
    group="robossl.heads",
    check=_check,
    built_in={
        "mlp": "robossl.policies.heads.mlp:PooledHead",
        "keypoints": "robossl.policies.heads.keypoints:KeypointsHead",
        "attention": "robossl.policies.heads.attention:AttentionHead",
    },
)


def resolve_head(name: str) -> type[PolicyHead]:
    """Return the class of a head.

    Raises:
        InputError: no head has that name, or it is a plugin that cannot be used.
    """
    found: type[PolicyHead] = HEADS.resolve(name)
    return found
