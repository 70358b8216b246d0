"""Pairs of views that differ only in blur and solarization: BYOL's augmentation (table 6 of arXiv:2006.07733).

MoCo v3, Barlow Twins and VICReg adopted it with torchvision's operations; BYOL's own are `colour: byol`.
"""

from __future__ import annotations

from dataclasses import replace

from robossl.views import ViewSpec

VIEW = ViewSpec(  # common to both views; table 6
    scale=(0.08, 1.0),
    interpolation="bicubic",
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
)
BLUR_P = (1.0, 0.1)  # table 6
SOLARIZE_P = (0.0, 0.2)  # table 6


def pair_of(
    view: ViewSpec, *, blur_p: tuple[float, float], solarize_p: tuple[float, float]
) -> tuple[ViewSpec, ViewSpec]:
    """Return two views: `view` with each of the two probabilities of blur and solarization.

    Examples:
        >>> [spec.blur_p for spec in pair_of(VIEW, blur_p=(1.0, 0.1), solarize_p=(0.0, 0.2))]
        [1.0, 0.1]
    """
    first, second = (
        replace(view, blur_p=blur, solarize_p=solarize) for blur, solarize in zip(blur_p, solarize_p, strict=True)
    )
    return first, second
