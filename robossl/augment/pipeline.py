"""Augment decoded frames: make the views (augmented frames or clips) of a method, and record how each was made.

The order of operations is rotation, crop with resize and flip, quarter turns, colour jitter, grayscale, blur, solarize,
normalise. A sample's pixels depend only on its own frame and its own random draws. On a CPU, the other samples of the
batch do not change even the last bit of these pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robossl.augment.blur import gaussian_blur, kernel_radius, official_radius
from robossl.augment.colour import grayscale_, jitter_, put_rows, solarize_
from robossl.augment.colour_official import official_jitter_
from robossl.augment.crop import crop_each, crop_matrix, signed_box
from robossl.augment.random_draws import draw
from robossl.augment.rotate import rotate
from robossl.augment.thread_chunks import chunks, for_each
from robossl.views import Batch, RawBatch, RawFrames, View, ViewSpec

_FACTORS = ("brightness", "contrast", "saturation", "hue")
Params = dict[str, Tensor]
Draws = dict[str, NDArray[np.float32]]  # the content of `Params` as numpy arrays, with shape (n, ...) for n frames


class Augment:
    """Makes all views (augmented frames or clips) of a batch on one device."""

    def __init__(
        self,
        specs: tuple[ViewSpec, ...],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """Store the settings of a run's augmentation.

        Args:
            specs: Specifications of the views, in the order in which the method expects the views.
            mean: Mean that normalisation subtracts from each channel, for pixels in 0 to 1.
            std: Standard deviation that normalisation divides each channel by.
            seed: Seed of the run.
            device: Device that makes and holds the views.
            memory_format: Memory format of each view's pixels (for clips: of each frame's pixels).
        """
        self.specs, self.mean, self.std = specs, tuple(mean), tuple(std)
        self.seed, self.device, self.memory_format = seed, device, memory_format

    def __call__(self, raw: RawBatch) -> Batch:
        """Draw the random parameters of each view, and make the views.

        The parameters depend only on the seed, the step, the sample's position in the batch of all ranks and the view.
        So repeated calls give the same pixels.
        """
        clips = {clip: _place(frames, self.device) for clip, frames in raw.clips.items()}
        views = []
        for view, spec in enumerate(self.specs):
            frames = clips[spec.clip]
            params = draw(
                spec,
                seed=self.seed,
                step=raw.step,
                position=raw.position.cpu(),
                view=view,
                num_frames=frames.pixels.shape[1],
                source_hw=frames.source_hw,
            )
            views.append(apply(frames, spec, params, self.mean, self.std, memory_format=self.memory_format))
        extra = {name: value.to(self.device, non_blocking=True) for name, value in raw.extra.items()}
        return Batch(tuple(views), raw.index.to(self.device, non_blocking=True), extra)


def apply(
    frames: RawFrames,
    spec: ViewSpec,
    params: Params,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> View:
    """Make one view (augmented frames) from its drawn parameters.

    Args:
        frames: Decoded frames: `pixels` on the working device, `source_hw` on the CPU.
        spec: Specification of the view. Its sizes, thresholds and kinds of filter are used. Its probabilities are not,
            because `params` already says which operations to apply.
        params: Parameters from `draw`, on the CPU. The caller may change them first.
        mean: Mean that normalisation subtracts from each channel, for pixels in 0 to 1.
        std: Standard deviation that normalisation divides each channel by.
        memory_format: Memory format of the view's pixels.

    Returns:
        The view, on the working device. If `spec.clip` is a single frame, the view has no time axis.
    """
    device, (b, t) = frames.pixels.device, frames.pixels.shape[:2]
    source_hw = frames.source_hw[:, None].expand(b, t, 2)
    draws = {name: value.flatten(0, 1).numpy() for name, value in {**params, "source_hw": source_hw}.items()}
    pixels = torch.empty(b * t, 3, spec.size, spec.size, device=device, memory_format=memory_format)
    _fill(pixels, frames.pixels.flatten(0, 1), draws, spec, mean, std)
    box = signed_box(params["crop"], params["flip"], source_hw)
    rest = {"box": box, "time": frames.time_seconds, "valid": frames.valid.float()}
    columns = {f"column {name}": value for name, value in frames.columns.items()}
    seen = _to_device({**params, **rest, **columns}, device)
    if spec.clip.num_frames == 0:
        seen = {name: value[:, 0] for name, value in seen.items()}
    return View(
        pixels=pixels if spec.clip.num_frames == 0 else pixels.reshape(b, t, *pixels.shape[1:]),
        box=None if spec.rotation_degrees or spec.turn_p else seen["box"],
        source_hw=frames.source_hw.to(device, non_blocking=True),
        params={name: seen[name] for name in params},
        time_seconds=seen["time"],
        valid=seen["valid"] > 0,
        columns={name: seen[f"column {name}"] for name in frames.columns},
    )


def _fill(
    pixels: Tensor, frames: Tensor, draws: Draws, spec: ViewSpec, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Augment all frames, chunk by chunk, and write the results into `pixels`."""
    device = pixels.device
    # Copies to the GPU are `non_blocking` everywhere in this room: the others wait until the GPU has nothing to do.
    centre, spread = (255 * torch.tensor(values).to(device, non_blocking=True).view(3, 1, 1) for values in (mean, std))

    def make(rows: NDArray[np.int64]) -> None:
        own = {name: value[rows] for name, value in draws.items()}
        chosen = torch.from_numpy(rows)
        with torch.autocast(device.type, enabled=False):
            x = _crop(frames, chosen, own, spec)
            _turn(x, own["turns"])
            x = _photometric(x, own, spec)
            put_rows(pixels, chosen, x.sub_(centre).div_(spread))

    for_each(make, chunks(draws["order"].astype(np.int64), size=spec.size, device=device))


def _crop(frames: Tensor, rows: Tensor, own: Draws, spec: ViewSpec) -> Tensor:
    """Rotate, crop and resize the frames with these row numbers; return values (m, 3, size, size) from 0 to 255."""
    device = frames.device
    if spec.rotation_degrees:
        degrees, source_hw = (torch.from_numpy(own[name]) for name in ("angle", "source_hw"))
        frames, rows = rotate(frames[rows.to(device, non_blocking=True)], degrees, source_hw), torch.arange(len(rows))
    crop, flip = (torch.from_numpy(own[name]) for name in ("crop", "flip"))
    if device.type == "cpu":
        return crop_each(frames, rows, crop, flip, size=spec.size, interpolation=spec.interpolation)
    chosen = frames[rows.to(device, non_blocking=True)]
    return crop_matrix(
        chosen,
        crop.to(device, non_blocking=True),
        flip.to(device, non_blocking=True),
        size=spec.size,
        interpolation=spec.interpolation,
    )


def _turn(x: Tensor, turns: NDArray[np.float32]) -> None:
    """Turn each square image counterclockwise by its number of quarter turns, in place."""
    for quarters in (1, 2, 3):
        rows = torch.from_numpy((turns == quarters).nonzero()[0])
        if len(rows):
            put_rows(x, rows, x[rows.to(x.device, non_blocking=True)].rot90(quarters, (-2, -1)))


def _photometric(x: Tensor, own: Draws, spec: ViewSpec) -> Tensor:
    """Apply colour jitter, grayscale, blur and solarize in place, each only to samples for which it was drawn."""
    order, factors = own["order"].astype(np.int64), np.stack([own[name] for name in _FACTORS], -1)
    if spec.colour == "torchvision":
        jitter_(x, order, factors)
    else:
        official_jitter_(x, order, factors, additive=spec.colour == "byol")
    gray, blurred, solarized = (torch.from_numpy(own[name].nonzero()[0]) for name in ("gray", "sigma", "solarize"))
    if len(gray):
        grayscale_(x, gray)
    if len(blurred):
        sigma = torch.from_numpy(own["sigma"])[blurred].to(x.device, non_blocking=True)
        put_rows(x, blurred, _blur(x[blurred.to(x.device, non_blocking=True)], sigma, spec))
    if len(solarized):
        solarize_(x, solarized, threshold=spec.solarize_threshold)
    return x


def _blur(x: Tensor, sigma: Tensor, spec: ViewSpec) -> Tensor:
    if spec.colour == "torchvision":
        return gaussian_blur(x, sigma, radius=kernel_radius(spec.blur_sigma[1], spec.size))
    return gaussian_blur(x, sigma, radius=official_radius(spec.size), border="zeros")


def _place(frames: RawFrames, device: torch.device) -> RawFrames:
    """Move the pixels to the device. The frame sizes stay on the CPU, where the crops are drawn."""
    pixels = frames.pixels.to(device, non_blocking=True)
    return replace(frames, pixels=pixels, source_hw=frames.source_hw.cpu())


def _to_device(params: Params, device: torch.device) -> Params:
    """Move many small float tensors (b, t, ...) to the device in one transfer."""
    if device.type == "cpu":
        return params
    wide = [value.float().flatten(2) if value.ndim > 2 else value.float()[..., None] for value in params.values()]
    moved = torch.cat(wide, -1).to(device, non_blocking=True)
    parts = torch.split(moved, [value.shape[-1] for value in wide], -1)
    return {name: part.view(value.shape) for (name, value), part in zip(params.items(), parts, strict=True)}
