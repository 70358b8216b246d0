"""Textures: functions that map points in metres to values from -1 to 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

Plane = Float32[ndarray, "h w"]


def wood(x: Plane, y: Plane) -> Plane:
    """Return the table's normal texture, wood. Its grain runs along y, so that a picture shows which way is up."""
    bent = x + np.float32(0.012) * np.sin(y * np.float32(9)) + np.float32(0.004) * np.sin(y * np.float32(31))
    grain = np.sin(bent * np.float32(95)) + np.float32(0.5) * np.sin(bent * np.float32(41) + y * np.float32(3))
    return grain / np.float32(1.5)


def checker(x: Plane, y: Plane) -> Plane:
    """Return a checkerboard of 6 cm squares with soft edges."""
    found: Plane = np.clip(np.sin(x * np.float32(52)) * np.sin(y * np.float32(52)) * 4, -1, 1)
    return found


def stripes(x: Plane, y: Plane) -> Plane:
    """Return diagonal stripes that repeat every 4 cm."""
    found: Plane = np.clip(np.sin((x + y) * np.float32(111)) * 2, -1, 1)
    return found


def dots(x: Plane, y: Plane) -> Plane:
    """Return a grid of dots, 5 cm apart."""
    return np.clip((np.cos(x * np.float32(126)) + np.cos(y * np.float32(126)) - np.float32(0.6)) * 2, -1, 1)


def marble(x: Plane, y: Plane) -> Plane:
    """Return irregular veins, as in marble."""
    wave = np.sin(x * np.float32(17) + 2 * np.sin(y * np.float32(23))) + np.sin(y * np.float32(29) + 2 * np.sin(x * 19))
    found: Plane = 1 - 2 * np.sqrt(np.abs(wave) / 2)
    return found


CLEAN = wood
OTHERS: tuple[Callable[[Plane, Plane], Plane], ...] = (checker, stripes, dots, marble)
