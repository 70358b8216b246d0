"""White balance: the colour temperature of the light, along the Planckian locus."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.probes.factors.colours import LEVELS, apply_table
from robossl.probes.factors.factor import Factor, Values, on_pixels

DAYLIGHT = 6500.0  # colour temperature of daylight, in kelvin
_WAVELENGTHS = np.array([610e-9, 550e-9, 465e-9])  # wavelengths of red, green and blue light, in metres
_RADIATION = 0.014387769  # second radiation constant, in metre kelvin
_DISPLAY_GAMMA = 2.2  # exponent of a display: light = pixel value ** exponent
_LUMA = np.array([0.299, 0.587, 0.114])


def planck_gains(kelvin: Float[ndarray, " b"]) -> Float[ndarray, "b 3"]:
    """Return the gains of red, green and blue for a colour temperature (Planck's law). They keep the luma of white."""
    light, daylight = (1 / np.expm1(_RADIATION / (_WAVELENGTHS * t)) for t in (kelvin[:, None], DAYLIGHT))
    gains = (light / daylight) ** (1 / _DISPLAY_GAMMA)
    found: Float[ndarray, "b 3"] = gains / (gains @ _LUMA)[:, None]
    return found


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Multiply each channel by its gain and clip at white. The strength is the colour temperature in kelvin."""
    return apply_table(pixels, planck_gains(values[:, 0])[:, :, None] * LEVELS)


WHITE_BALANCE = Factor(
    name="white_balance",
    title="white balance",
    unit="K",
    family="photometric",
    clean=DAYLIGHT,
    sides=((5500, 5000, 4500, 4000, 3500), (8000, 8700, 9600, 10700, 12000)),
    scale="mired",
    apply=on_pixels(change),
)
