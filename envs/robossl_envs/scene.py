"""Draw a scene: still objects once per episode, moving objects at every step.

Everything is drawn with numpy in table coordinates. A pixel's signed distance to a shape, in pixels, gives the share of
the pixel that the shape covers. So edges are antialiased at any picture size and with any camera. Light comes from one
side, so objects have a shadow and a rim: their edge is bright on the side of the light and dark on the opposite side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from robossl_envs import textures
from robossl_envs.camera import Camera, Grid
from robossl_envs.light import REACH, Colour, illumination, rotate_hue, towards_light
from robossl_envs.shapes import Box, Disc, Shape, Triangle

WORKSPACE = 0.25  # metres from the middle of the table to the rail that keeps objects in
TABLE = 0.42  # metres from the middle of the table to its edge
RIM = 0.005  # metres: width of an object's bright and dark rim
SOFT = 0.008  # metres: width of a shadow's edge
# Limit of 1 - (smallest depth in a picture). It keeps the horizon (depth 0) out of wide and tall pictures.
# Square pictures never reach this limit, because there 1 - (smallest depth) is at most 0.57.
MOST_TILTED = 0.8
TABLE_COLOUR: Colour = (0.71, 0.58, 0.44)
FLOOR_COLOUR: Colour = (0.30, 0.31, 0.33)
RAIL_COLOUR: Colour = (0.42, 0.33, 0.25)
SLEEVE_COLOUR: Colour = (0.25, 0.32, 0.42)

Picture = UInt8[ndarray, "h w 3"]
Pose = tuple[float, float, float]  # x and y in metres, angle in radians


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An object to draw. If its height is 0, it is a marking on the table."""

    name: str
    shape: Shape
    colour: Colour
    height: float  # metres
    patterned: bool = False  # whether the factor `manip_object_texture` adds a texture


class Scene:
    """Draws the pictures of one episode. The table, still objects, light and camera stay the same in all of them."""

    def __init__(
        self,
        markings: Sequence[tuple[SceneObject, Pose]],
        values: Mapping[str, float],
        rng: Generator,
        *,
        camera: Camera,
        height: int,
        width: int,
    ) -> None:
        self.values = dict(values)
        self.grid = Grid(camera, height=height, width=width)
        self.light = illumination(self.grid, values, rng) * np.float32(255)
        lx, ly = towards_light(values["light_direction"])
        self._away = (-lx * REACH, -ly * REACH)
        self._pattern = textures.OTHERS[int(rng.integers(len(textures.OTHERS)))]
        still = self._table(rng)
        # Still objects, in the order in which they are drawn.
        self.laid = (*markings, *_distractors(rng)[: int(values["distractors"])])
        for item, pose in self.laid:
            self._paint(still, item, pose)
        self._still = still
        self._occluder = self._sleeve(rng)

    def draw(self, objects: Sequence[tuple[SceneObject, Pose]], rng: Generator) -> Picture:
        """Draw a picture with these moving objects. Objects that are later in the list cover earlier ones."""
        picture = self._still.copy()
        for item, pose in objects:
            self._paint(picture, item, pose)
        if self._occluder is not None:
            window, cover, colour = self._occluder
            crop = picture[window]
            picture[window] = crop + cover * (colour - crop) + np.float32(0.5)
        side = min(picture.shape[:2])
        if self.values["blur"]:
            blurred = gaussian_filter(picture.astype(np.float32), sigma=(self.values["blur"] * side,) * 2 + (0,))
            picture = (blurred + 0.5).astype(np.uint8)
        if self.values["noise"]:
            noise = rng.standard_normal(picture.shape, np.float32) * np.float32(255 * self.values["noise"])
            picture = np.clip(picture + noise + 0.5, 0, 255).astype(np.uint8)
        return picture

    def masks(self, objects: Sequence[tuple[SceneObject, Pose]]) -> dict[str, Bool[ndarray, "h w"]]:
        """Return the mask of each object's visible pixels.

        A pixel is visible if its centre lies on the object, no later object covers it, and the occluder covers less
        than half of it.
        """
        found: dict[str, Bool[ndarray, "h w"]] = {}
        for item, (x, y, angle) in objects:
            mine = np.zeros((self.grid.height, self.grid.width), bool)
            window = self._window(item.shape, (x, y, angle))
            if window is not None:
                mine[window] = item.shape.distance(*_local(self.grid, window, x, y, angle)) < 0
            for other in found.values():
                other &= ~mine
            found[item.name] = found.get(item.name, False) | mine
        if self._occluder is not None:
            window, cover, _ = self._occluder
            for mask in found.values():
                mask[window] &= cover[..., 0] < 0.5
        return found

    def _paint(self, picture: Picture, item: SceneObject, pose: Pose) -> None:
        """Draw an object and its shadow into the picture. Compute colours only for the pixels that these two cover."""
        x, y, angle = pose
        sx, sy = self._away[0] * item.height, self._away[1] * item.height
        window = self._window(item.shape, pose, sx, sy)
        if window is None:
            return
        lx, ly = _local(self.grid, window, x, y, angle)
        distance = item.shape.distance(lx, ly)
        touched = distance * self.grid.per_metre[window] < 0.5
        if item.height:
            c, s = math.cos(angle), math.sin(angle)
            shadow = item.shape.distance(lx - np.float32(c * sx + s * sy), ly - np.float32(c * sy - s * sx))
            touched |= shadow < SOFT / 2
        # `here` and `there` are flat indices of the touched pixels, in the window and in the picture.
        here = np.flatnonzero(touched)
        rows, columns = np.divmod(here, touched.shape[1])
        there = (rows + window[0].start) * self.grid.width + (columns + window[1].start)
        distance = distance.take(here)
        cover = _clipped(np.float32(0.5) - distance * self.grid.per_metre.take(there))[:, None]
        colour = self.light.reshape(-1, 3).take(there, axis=0)
        colour *= np.array(item.colour, np.float32)
        pixels = picture.reshape(-1, 3)
        below = pixels.take(there, axis=0).astype(np.float32)
        if item.patterned and self.values["manip_object_texture"]:
            strength = np.float32(0.45 * self.values["manip_object_texture"])
            # The factor 3 makes the pattern a third as wide as on the table.
            pattern = self._pattern(lx.take(here) * 3, ly.take(here) * 3)
            colour *= (1 + strength * pattern)[:, None]
        if item.height:
            shadow = shadow.take(here)
            # `relief` is the relative extra brightness of the rim. It is positive on the side of the light.
            relief = (shadow - distance) * np.float32(0.4 / math.hypot(sx, sy))
            relief *= _clipped(distance * np.float32(1 / RIM) + 1)
            colour *= (1 + relief)[:, None]
            soft = _clipped(np.float32(0.5) - shadow * np.float32(1 / SOFT))
            below *= (1 - np.float32(0.42) * soft)[:, None]
        np.minimum(colour, 255, out=colour)
        colour -= below
        colour *= cover
        below += colour
        below += np.float32(0.5)
        pixels[there] = np.minimum(below, 255, out=below)

    def _window(self, shape: Shape, pose: Pose, sx: float = 0.0, sy: float = 0.0) -> tuple[slice, slice] | None:
        """Return the rows and columns that may show a shape and its shadow, which is displaced by (sx, sy) metres.

        Return None if both are outside the picture.
        """
        x, y, angle = pose
        left, bottom, right, top = shape.bounds(angle)
        return self.grid.window(
            x + left + min(sx, 0) - SOFT,
            y + bottom + min(sy, 0) - SOFT,
            x + right + max(sx, 0) + SOFT,
            y + top + max(sy, 0) + SOFT,
        )

    def _table(self, rng: Generator) -> Picture:
        x, y = self.grid.x, self.grid.y
        replaced = np.float32(self.values["table_texture"])
        other = textures.OTHERS[int(rng.integers(len(textures.OTHERS)))]
        grain = np.float32(0.05) * textures.CLEAN(x, y) * (1 - replaced) + np.float32(0.3) * other(x, y) * replaced
        colour = np.array(rotate_hue(TABLE_COLOUR, self.values["table_color"]), np.float32) * (1 + grain)[..., None]
        colour = self._over(colour, np.array(FLOOR_COLOUR, np.float32), -Box(2 * TABLE, 2 * TABLE).distance(x, y))
        rail = np.abs(Box(2 * WORKSPACE, 2 * WORKSPACE).distance(x, y) - np.float32(0.004)) - np.float32(0.004)
        colour = self._over(colour, np.array(RAIL_COLOUR, np.float32), rail)
        found: Picture = (np.clip(colour * self.light, 0, 255) + 0.5).astype(np.uint8)
        return found

    def _over(self, below: Any, colour: Any, distance: Any) -> Any:
        cover = np.clip(np.float32(0.5) - distance * self.grid.per_metre, 0, 1)[..., None]
        return below + cover * (colour - below)

    def _sleeve(self, rng: Generator) -> tuple[tuple[slice, slice], Any, Any] | None:
        """Return the occluder: a sleeve that enters the picture from a border and hides a part of the picture.

        The three values are a window (rows and columns), the share of each pixel in the window that the sleeve covers,
        and the sleeve's colour in the window. Return None if the factor `occluder` is 0.
        """
        share = self.values["occluder"]
        side, lean, place = int(rng.integers(4)), rng.uniform(-0.15, 0.15), rng.uniform(0.35, 0.65)
        if not share:
            return None
        height, width = self.grid.height, self.grid.width
        u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        # `along` is a pixel's distance to the border where the sleeve enters. `across` is its position along this
        # border. Both are fractions of the picture's width or height.
        along, across = ((v, u), (1 - v, u), (u, v), (1 - u, v))[side]
        wide = math.sqrt(share) * 0.75
        long = share / wide
        outside = np.maximum(along - long, np.abs(across - place - lean * along) - wide / 2)
        cover = np.clip(0.5 - outside * min(height, width), 0, 1).astype(np.float32)
        rows, columns = np.nonzero(cover.any(axis=1))[0], np.nonzero(cover.any(axis=0))[0]
        window = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        fold = 1 + 0.15 * np.sin((across - place) * 40)
        colour = np.minimum(np.array(SLEEVE_COLOUR) * fold[..., None] * self.light, 255).astype(np.float32)
        return window, cover[window][..., None], colour[window]


def _clipped(x: Any) -> Any:
    """Clip values to 0..1 in place. For small arrays this is faster than np.clip."""
    np.maximum(x, 0, out=x)
    return np.minimum(x, 1, out=x)


def _local(grid: Grid, window: tuple[slice, slice], x: float, y: float, angle: float) -> tuple[Any, Any]:
    """Return the table coordinates of a window's pixels, relative to an object at (x, y) turned by `angle`."""
    gx, gy = grid.x[window] - np.float32(x), grid.y[window] - np.float32(y)
    if not angle:
        return gx, gy
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return gx * c + gy * s, gy * c - gx * s


def draw_camera(values: Mapping[str, float], rng: Generator, *, height: int, width: int) -> Camera:
    """Choose the camera of an episode at random. In wide or tall pictures, limit its tilt to keep the horizon out."""
    shift, tilt = rng.uniform(0, 2 * math.pi, size=2)
    along, across = 2 * values["camera_perspective"] * math.cos(tilt), 2 * values["camera_perspective"] * math.sin(tilt)
    # `nearing` is 1 - (smallest depth in the picture). The smallest depth is at a corner.
    nearing = (abs(along) * width + abs(across) * height) / min(height, width)
    bounded = MOST_TILTED / nearing if nearing > MOST_TILTED else 1.0
    return Camera(
        shift=(values["camera_shift"] * math.cos(shift), values["camera_shift"] * math.sin(shift)),
        roll=values["camera_rotation"],
        zoom=values["camera_zoom"],
        tilt=(along * bounded, across * bounded),
    )


def _distractors(rng: Generator) -> list[tuple[SceneObject, Pose]]:
    """Return eight random objects that lie between the rail and the border of the unchanged camera's picture.

    The list always has eight objects, so that later random numbers do not depend on how many of them are shown.
    """
    found: list[tuple[SceneObject, Pose]] = []
    kinds: tuple[Shape, ...] = (Disc(0.02), Box(0.036, 0.036), Triangle(((-0.02, -0.015), (0.02, -0.015), (0, 0.02))))
    for number, place in enumerate(rng.permutation(8)):
        along, kind, hue = rng.uniform(-0.19, -0.03), int(rng.integers(3)), rng.uniform()
        # Each side of the table has two places, 0.22 m apart. `place // 2` is the number of the side.
        along += 0.22 * (place % 2)
        x, y = ((along, 0.287), (along, -0.287), (0.287, along), (-0.287, along))[place // 2]
        shape, colour = kinds[kind].scaled(rng.uniform(0.8, 1.2)), rotate_hue((0.8, 0.25, 0.25), hue)
        found.append((SceneObject(f"distractor_{number}", shape, colour, 0.02), (x, y, rng.uniform(0, 2 * math.pi))))
    return found
