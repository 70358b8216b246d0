"""Data types that pass from the store to the method: decoded frames, specified views, augmented views, batches.

A view is an augmented frame or clip. A method specifies the views that it wants by `ViewSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from robossl.common.checks import check_limits, check_range

Operation = Literal["crop", "flip", "rotation", "turn", "jitter", "grayscale", "blur", "solarize"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """Which frames a view (augmented frame or clip) shows. Their times count from the anchor, a randomly drawn frame.

    Views of a sample with equal `ClipSpec` show the same frames. Times are in seconds, so that data of different frame
    rates can be mixed. A frame outside its episode is not valid; the episode's first or last frame replaces it.
    """

    num_frames: int = 0  # 0: a single frame without a time axis; t >= 1: a clip of t frames with a time axis
    stride_seconds: float = 0.0
    # The time from the anchor (the drawn frame) to the first frame is a uniform random number in this range.
    offset_seconds: tuple[float, float] = (0.0, 0.0)
    rule: str = "stride"  # name of the rule that chooses the times of the frames (data/times.py)
    columns: tuple[str, ...] = ()  # data columns to read with every frame: "action", "state", ...

    def __post_init__(self) -> None:
        check_range(0, num_frames=self.num_frames, stride_seconds=self.stride_seconds)

    @property
    def has_time(self) -> bool:
        """Whether the clip has a time axis, or may show another frame than its anchor (the drawn frame)."""
        return self.num_frames > 0 or self.offset_seconds != (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """What a method wants in a view (augmented frame or clip): which frames, and how they are augmented.

    Defaults are the augmentation of MoCo v2 (arXiv:2003.04297), which SimSiam uses too.

    Attributes:
        size: Height and width of the view, in pixels.
        scale: Range of the crop's area, as a fraction of the frame.
        ratio: Range of the crop's width over its height, in source pixels.
        interpolation: How the crop is resized; both ways are antialiased.
        hflip_p: Probability of a horizontal flip.
        rotation_degrees: Rotate by a uniform angle in +- this value, before the crop; `View.box` is then None.
        turn_p: Probability of a turn by 90, 180 or 270 degrees; `View.box` is then None. At 0.75, all four directions
            of a frame are equally likely.
        jitter_p: Probability of the colour jitter, which the next four values describe.
        brightness: For a value x, the factor is uniform in [max(0, 1 - x), 1 + x].
        contrast: As for brightness.
        saturation: As for brightness.
        hue: The shift is uniform in +- this value, in turns of the colour circle.
        colour: Name of the project whose code for colour and blur is followed (colour_official.py).
        grayscale_p: Probability of a grey view.
        blur_p: Probability of a blur.
        blur_sigma: Range of the blur's standard deviation, in pixels of the view.
        solarize_p: Probability of inverting the bright pixels.
        solarize_threshold: Brightness from which pixels are inverted, 0 to 1.
        clip: Which frames the view shows.
        per_frame: Operations with new random values for every frame of a clip. Other operations use one value per clip.
        as_first: Operations with the same random draws as in the sample's first view.

    Raises:
        InputError: a value is out of its range.

    Example:
        >>> import robossl
        >>> robossl.ViewSpec(size=96, blur_p=0.0, hflip_p=0.0).scale
        (0.2, 1.0)
    """

    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    hflip_p: float = 0.5
    rotation_degrees: float = 0.0
    turn_p: float = 0.0
    jitter_p: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    colour: Literal["torchvision", "byol", "simclr"] = "torchvision"
    grayscale_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float = 0.0
    solarize_threshold: float = 0.5
    clip: ClipSpec = ClipSpec()
    per_frame: tuple[Operation, ...] = ()
    as_first: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        check_range(1, size=self.size)
        check_limits(1, scale=self.scale)
        check_limits(ratio=self.ratio, blur_sigma=self.blur_sigma)
        check_range(
            0,
            1,
            hflip_p=self.hflip_p,
            turn_p=self.turn_p,
            jitter_p=self.jitter_p,
            grayscale_p=self.grayscale_p,
            blur_p=self.blur_p,
            solarize_p=self.solarize_p,
            solarize_threshold=self.solarize_threshold,
        )
        check_range(
            0,
            rotation_degrees=self.rotation_degrees,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
        )
        check_range(0, 0.5, hue=self.hue)


@dataclass(frozen=True, slots=True)
class RawFrames:
    """Decoded frames of one `ClipSpec`, before augmentation; the axis t has length 1 if the clip has no time axis."""

    pixels: UInt8[Tensor, "b t 3 h w"]  # channels-last memory; small frames are padded at the right and bottom
    source_hw: Int[Tensor, "b 2"]  # size of each sample's frames without padding
    time_seconds: Float[Tensor, "b t"]
    valid: Bool[Tensor, "b t"]  # whether the requested time lies in the episode
    columns: dict[str, Float[Tensor, "b t d"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawBatch:
    """The part of a step's batch that this rank (process) trains on, before augmentation."""

    step: int
    position: Int[Tensor, " b"]  # index of each sample in the batch of all ranks; seeds the sample's augmentation
    index: Int[Tensor, " b"]  # store row of each sample's anchor (the drawn frame)
    clips: dict[ClipSpec, RawFrames]
    extra: dict[str, Tensor] = field(default_factory=dict)

    def pin_memory(self) -> RawBatch:
        """Return the batch with its pixels in pinned memory; torch's DataLoader calls this for a GPU."""
        clips = {clip: replace(frames, pixels=frames.pixels.pin_memory()) for clip, frames in self.clips.items()}
        return replace(self, clips=clips)


@dataclass(frozen=True, slots=True)
class View:
    """One augmented frame or clip for each sample of a batch. Clips have a time axis t after the batch axis b."""

    pixels: Float[Tensor, "b *t 3 h w"]  # on the training device, normalised with the run's mean and std
    box: Float[Tensor, "b *t 4"] | None  # x0 y0 x1 y1 of the crop, in fractions of the source frame; x0 > x1 if flipped
    source_hw: Int[Tensor, "b 2"]
    params: dict[str, Float[Tensor, "b ..."]]  # random values that each operation used
    time_seconds: Float[Tensor, " b *t"]
    valid: Bool[Tensor, " b *t"]  # whether the requested time lies in the episode
    columns: dict[str, Float[Tensor, "b *t d"]] = field(default_factory=dict)  # values of `ClipSpec.columns`

    def __getitem__(self, part: slice) -> View:
        """Return the samples of a slice of the batch."""
        return View(
            pixels=self.pixels[part],
            box=None if self.box is None else self.box[part],
            source_hw=self.source_hw[part],
            params={name: value[part] for name, value in self.params.items()},
            time_seconds=self.time_seconds[part],
            valid=self.valid[part],
            columns={name: value[part] for name, value in self.columns.items()},
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of a method's forward pass.

    Attributes:
        views: A view for each `ViewSpec` of the method. Its `pixels` are normalised, (b, 3, h, w) or (b, t, 3, h, w).
        index: Store row of each sample.
        extra: More tensors by name, with a row for each sample.

    Example:
        >>> import robossl, torch
        >>> batch = robossl.Batch(views=(), index=torch.arange(4))
        >>> batch[:2].index
        tensor([0, 1])
    """

    views: tuple[View, ...]
    index: Int[Tensor, " b"]
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, part: slice) -> Batch:
        """Return the samples of a slice of the batch."""
        extra = {name: value[part] for name, value in self.extra.items()}
        return Batch(views=tuple(view[part] for view in self.views), index=self.index[part], extra=extra)
