"""Random parameters of the augmentation: a pure function of (seed, step, position in the global batch, view number).

Every sample uses its own range of counter values of a Philox random generator. Therefore the number of ranks
(processes), the batch size of a rank and the order of the samples do not change a sample's parameters.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from robossl.views import OPERATIONS, Operation, ViewSpec

# This number is part of the random generator's counter, so that code with another purpose and the same seed gets
# different random numbers.
_DOMAIN = int.from_bytes(b"augment", "big")
# Each frame has a row of _PER_FRAME uniform random numbers. These constants say which columns make which parameter.
# _PER_FRAME is a multiple of four, because Philox makes numbers in blocks of four.
_AREA, _RATIO, _TOP, _LEFT, _FLIP, _ANGLE = slice(0, 10), slice(10, 20), 20, 21, 22, 23
_JITTER, _FACTORS, _ORDER, _GRAY, _BLUR, _SIGMA, _SOLARIZE, _TURN = 24, slice(25, 29), slice(29, 33), 33, 34, 35, 36, 37
_PER_FRAME = 40
_COLUMNS: dict[Operation, slice] = {
    "crop": slice(0, 22),
    "flip": slice(22, 23),
    "rotation": slice(23, 24),
    "jitter": slice(24, 33),
    "grayscale": slice(33, 34),
    "blur": slice(34, 36),
    "solarize": slice(36, 37),
    "turn": slice(37, 38),
}

Array = NDArray[np.float64]


def draw(
    spec: ViewSpec,
    *,
    seed: int,
    step: int,
    position: Int[Tensor, " b"],
    view: int,
    num_frames: int,
    source_hw: Int[Tensor, "b 2"],
) -> dict[str, Float[Tensor, "b t ..."]]:
    """Draw all random parameters of one view (augmented frames) on the CPU. Compute in float64, return float32.

    Args:
        spec: Specification of the view. `spec.per_frame` names the operations drawn separately for each frame of a
            clip. `spec.as_first` names the operations that share the draws of view 0.
        seed: Seed of the run.
        step: Training step, below 2^48.
        position: Index of each sample in the global batch.
        view: Number of the view, from 0.
        num_frames: Number of frames in the clip (t); 1 for an image.
        source_hw: Height and width of each sample's frames, pixels.

    Returns:
        Tensors by name, (b, t) if no shape is given. "crop" (b, t, 4): top, left, height and width in source pixels,
        after rotation. "flip", "gray", "solarize": 1 if the operation is applied, else 0. "angle": degrees,
        counterclockwise. "turns": quarter turns, counterclockwise. "brightness", "contrast", "saturation": factors; 1
        changes nothing. "hue": fraction of the colour circle; 0 changes nothing. "order" (b, t, 4): numbers of the
        operations (0 brightness, 1 contrast, 2 saturation, 3 hue) in the order in which they are applied, filled up
        with -1. "sigma": sigma of the blur in pixels of the view; 0 for no blur.
    """
    drawn = num_frames if spec.per_frame else 1
    numbers = partial(uniforms, drawn * _PER_FRAME, seed=seed, step=step, position=position.numpy())
    shape, hw = (len(position), drawn, _PER_FRAME), source_hw.numpy().astype(np.float64)[:, None]
    u = numbers(view=view).reshape(shape)
    if spec.as_first:
        first = numbers(view=0).reshape(shape)
        for operation in spec.as_first:
            u[..., _COLUMNS[operation]] = first[..., _COLUMNS[operation]]
    for operation in set(OPERATIONS) - set(spec.per_frame):
        u[..., _COLUMNS[operation]] = u[:, :1, _COLUMNS[operation]]
    params = {
        "crop": crop_boxes(u, hw, scale=spec.scale, ratio=spec.ratio),
        "flip": u[..., _FLIP] < spec.hflip_p,
        "angle": spec.rotation_degrees * (2 * u[..., _ANGLE] - 1),
        "turns": _turns(u[..., _TURN], spec.turn_p),
        **_jitter(u, spec),
        "gray": u[..., _GRAY] < spec.grayscale_p,
        "sigma": np.where(u[..., _BLUR] < spec.blur_p, _between(u[..., _SIGMA], spec.blur_sigma), 0.0),
        "solarize": u[..., _SOLARIZE] < spec.solarize_p,
    }
    return {name: _tensor(value, num_frames) for name, value in params.items()}


def uniforms(count: int, *, seed: int, step: int, view: int, position: NDArray[np.int64]) -> Array:
    """Draw `count` uniform numbers in [0, 1) for each position in the global batch, shape (b, count)."""
    blocks = -(-count // 4)
    first = int(position.min())
    num_rows = int(position.max()) - first + 1
    key = np.array([seed % 2**64, step * 2**16 + view], dtype=np.uint64)
    counter = np.array([first * blocks, 0, 0, _DOMAIN], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(num_rows * blocks * 4)
    rows = np.asarray(bits).reshape(num_rows, blocks * 4)[position - first, :count]
    return (rows >> np.uint64(11)).astype(np.float64) * 2.0**-53


def crop_boxes(u: Array, hw: Array, *, scale: tuple[float, float], ratio: tuple[float, float]) -> Array:
    """Draw crop boxes as torchvision's `RandomResizedCrop` does.

    Take the first of ten random boxes that fits into the frame. If none of them fits, take a box at the centre.

    Args:
        u: Uniform random numbers of the frames, (b, t, 40).
        hw: Height and width of the frames in pixels, (b, 1, 2).
        scale: Smallest and largest area of the crop, as a fraction of the frame's area.
        ratio: Smallest and largest ratio of width to height; the logarithm of the ratio is uniform.

    Returns:
        Top, left, height and width in whole pixels, (b, t, 4).
    """
    height, width = hw[..., 0], hw[..., 1]
    area = (height * width)[..., None] * _between(u[..., _AREA], scale)
    aspect = np.exp(_between(u[..., _RATIO], (np.log(ratio[0]), np.log(ratio[1]))))
    tries = np.stack([np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))], axis=-1)
    fits = ((tries > 0) & (tries <= hw[..., None, :])).all(-1)
    first = fits.argmax(-1)[..., None, None]
    inside = np.take_along_axis(tries, first, axis=-2)[..., 0, :]
    size = np.where(fits.any(-1, keepdims=True), inside, _centre_size(height, width, ratio))
    room = hw - size
    corner = np.floor(u[..., [_TOP, _LEFT]] * (room + 1))
    corner = np.where(fits.any(-1, keepdims=True), corner, np.floor(room / 2))
    return np.concatenate([corner, size], axis=-1)


def _centre_size(height: Array, width: Array, ratio: tuple[float, float]) -> Array:
    """Return height and width of the largest box in the frame whose ratio of width to height is allowed."""
    tall, wide = width / height < ratio[0], width / height > ratio[1]
    box_height = np.where(tall, np.rint(width / ratio[0]), height)
    box_width = np.where(wide, np.rint(height * ratio[1]), width)
    return np.stack([box_height, box_width], axis=-1)


def _jitter(u: Array, spec: ViewSpec) -> dict[str, Array]:
    """Draw the factors and the order of the colour jitter's operations as torchvision's `ColorJitter` does."""
    on = u[..., _JITTER] < spec.jitter_p
    factors = {}
    strengths = {"brightness": spec.brightness, "contrast": spec.contrast, "saturation": spec.saturation}
    for column, (name, strength) in enumerate(strengths.items()):
        value = _between(u[..., _FACTORS][..., column], (max(0.0, 1 - strength), 1 + strength))
        factors[name] = np.where(on, value, 1.0)
    factors["hue"] = np.where(on, _between(u[..., _FACTORS][..., 3], (-spec.hue, spec.hue)), 0.0)
    order = u[..., _ORDER].argsort(-1)
    active = np.array([*strengths.values(), spec.hue]) > 0
    order = np.where(on[..., None] & active[order], order, -1)
    factors["order"] = np.take_along_axis(order, (order < 0).argsort(-1, kind="stable"), -1)
    return factors


def _turns(u: Array, p: float) -> Array:
    """Return a number of quarter turns: 0 with probability 1 - p, else 1, 2 or 3 with equal probability."""
    return np.where(u < p, 1 + np.minimum(np.floor(3 * u / max(p, 1e-12)), 2), 0)


def _between(u: Array, limits: tuple[float, float]) -> Array:
    return limits[0] + (limits[1] - limits[0]) * u


def _tensor(value: NDArray[np.generic], num_frames: int) -> Tensor:
    """Convert drawn numbers to float32. If all frames of a clip share a number, repeat it for each frame."""
    whole = torch.from_numpy(value.astype(np.float32))
    return whole.expand(-1, num_frames, *whole.shape[2:]).contiguous()
