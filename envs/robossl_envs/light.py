"""Light on the table: its colour temperature, a brightness that grows towards the light, and one cast shadow."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from numpy.random import Generator

from robossl_envs.camera import HALF_VIEW, Grid

Colour = tuple[float, float, float]
WAVELENGTHS = (610e-9, 550e-9, 465e-9)  # metres: approximate wavelengths of red, green and blue light
DAYLIGHT = 6500.0  # K: colour temperature of daylight
GAMMA = 2.2  # a pixel value is the light's power ** (1 / GAMMA)
AZIMUTH = 135.0  # degrees: direction of the light without nuisance factors (the upper left)
SLOPE = 0.14  # relative extra brightness of a table point that is HALF_VIEW nearer to the light than the middle
REACH = 0.9  # length of a shadow divided by the height of the object


def planck(kelvin: float) -> Colour:
    """Return the gains of red, green and blue under light of a colour temperature, by Planck's law.

    The gains are relative to daylight, and do not change the brightness of grey.

    Examples:
        >>> [round(gain, 2) for gain in planck(3000.0)]  # a light bulb
        [1.19, 0.97, 0.66]
    """

    def radiance(wavelength: float, kelvin: float) -> float:
        return 1 / math.expm1(0.014387769 / (wavelength * kelvin))  # 0.0143...: second radiation constant, m K

    red, green, blue = ((radiance(w, kelvin) / radiance(w, DAYLIGHT)) ** (1 / GAMMA) for w in WAVELENGTHS)
    # A camera adjusts its exposure to the brightness of the light, so divide by the luma.
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return red / luma, green / luma, blue / luma


def rotate_hue(colour: Colour, turns: float) -> Colour:
    """Rotate the hue of a colour; keep lightness and saturation."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*colour)
    return colorsys.hls_to_rgb((hue + turns) % 1, lightness, saturation)


def towards_light(turn_degrees: float) -> tuple[float, float]:
    """Return the unit vector on the table towards the light."""
    azimuth = math.radians(AZIMUTH + turn_degrees)
    return math.cos(azimuth), math.sin(azimuth)


def illumination(grid: Grid, values: Mapping[str, float], rng: Generator) -> Float32[ndarray, "h w 3"]:
    """Return the factors by which the light changes red, green and blue at every pixel."""
    lx, ly = towards_light(values["light_direction"])
    level = 1 + SLOPE * (grid.x * lx + grid.y * ly) / HALF_VIEW
    # A tilted camera also sees distant points, where the light level would be extreme, so clip it.
    np.clip(level, 0.5, 1.5, out=level)
    angle, offset = rng.uniform(0, math.pi), rng.uniform(-0.12, 0.12)
    across = np.abs(grid.x * math.cos(angle) + grid.y * math.sin(angle) - offset)
    # The shadow is a band 22 cm wide with soft edges of 3 cm.
    edge = np.clip((0.11 - across) / 0.03, -0.5, 0.5) + 0.5
    level *= 1 - values["shadow"] * edge
    gains = np.array(planck(values["light_color"])) * values["brightness"]
    found: Float32[ndarray, "h w 3"] = (level[..., None] * gains).astype(np.float32)
    return found
