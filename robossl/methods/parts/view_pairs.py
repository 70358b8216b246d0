"""Pairs of views (augmented frames) whose settings differ only in blur and solarization (BYOL, arXiv:2006.07733).

The augmentation is that of BYOL's table 6. MoCo v3, Barlow Twins and VICReg adopted it with torchvision's colour
operations. `colour: byol` selects BYOL's own operations.
"""

from __future__ import annotations

from dataclasses import replace

from robossl.views import ViewSpec

VIEW = ViewSpec(  # settings that both views have in common (table 6)
    scale=(0.08, 1.0),
    interpolation="bicubic",
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
)
BLUR_P = (1.0, 0.1)  # probability of blur in each view (table 6)
SOLARIZE_P = (0.0, 0.2)  # probability of solarization in each view (table 6)


def pair_of(
    view: ViewSpec, *, blur_p: tuple[float, float], solarize_p: tuple[float, float]
) -> tuple[ViewSpec, ViewSpec]:
    """Return two copies of `view`, each with its own probability of blur and of solarization.

    Examples:
        >>> [spec.blur_p for spec in pair_of(VIEW, blur_p=(1.0, 0.1), solarize_p=(0.0, 0.2))]
        [1.0, 0.1]
    """
    first, second = (
        replace(view, blur_p=blur, solarize_p=solarize) for blur, solarize in zip(blur_p, solarize_p, strict=True)
    )
    return first, second
