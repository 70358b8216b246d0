"""The input of an ONNX model without a card: what its graph says about it, and what only the model's owner knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.errors import InputError
from robossl.measure.subjects.resize import resize, resize_to_bytes

Triple = tuple[float, float, float]
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True, slots=True)
class InputDescription:
    """What the owner says about an ONNX model. If a field without a default is left out, the graph must state it.

    Args:
        layout: Axis order of the input.
        size: Height and width to which frames are resized.
        mean: Mean to subtract from RGB, in the unit of `range`.
        std: Standard deviation by which RGB is divided after the subtraction.
        range: Range of pixel values before mean and std are applied.
        order: Order of the colours.
        output: Name of the output to probe.
        output_layout: Axis order of an output that is a feature map. Default: the layout of the input.
        dense: Name of a second output, which is a feature map. Default: no second output.
        backbone: timm's name of the model's network. The network with random weights is the baseline. Default: the
            name in the metadata or the file name, else ResNet-18.
    """

    layout: Literal["nchw", "nhwc"] | None = None
    size: tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    range: Literal["0-1", "0-255"] | None = None
    order: Literal["rgb", "bgr"] = "rgb"
    output: str | None = None
    output_layout: Literal["nchw", "nhwc"] | None = None
    dense: str | None = None
    backbone: str | None = None


@dataclass(frozen=True, slots=True)
class InputFormat:
    """Complete description of a model's input."""

    name: str
    dtype: Any  # numpy type of the input
    batch: int | None  # batch size that the graph fixes; None: any batch size
    layout: Literal["nchw", "nhwc"]
    size: tuple[int, int] | None  # height and width; None: frames are not resized
    mean: Triple
    std: Triple
    range: Literal["0-1", "0-255"]
    order: Literal["rgb", "bgr"]
    output_layout: Literal["nchw", "nhwc"]

    def tensor(self, frames: UInt8[ndarray, "b h w 3"]) -> ndarray:
        """Convert frames to the model's input."""
        if self.dtype == np.uint8:
            values = frames if self.size is None else resize_to_bytes(frames, self.size)
        else:
            values = frames.astype(np.float32) if self.size is None else resize(frames, self.size)
            values = values / np.float32(255) if self.range == "0-1" else values
            values = (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        values = values[..., ::-1] if self.order == "bgr" else values
        values = values.transpose(0, 3, 1, 2) if self.layout == "nchw" else values
        return np.ascontiguousarray(values, self.dtype)

    @property
    def words(self) -> str:
        """Describe the input in one line."""
        size = "frames as they are" if self.size is None else f"antialiased bilinear to {self.size[0]}x{self.size[1]}"
        scale = "" if self.dtype == np.uint8 else f", mean {_listed(self.mean)}, std {_listed(self.std)}"
        return f"{size}; {self.order} {self.layout} {np.dtype(self.dtype).name} in {self.range}{scale}"


def resolve_input(
    model: str, name: str, shape: Sequence[int | str | None], dtype: str, given: InputDescription
) -> InputFormat:
    """Combine what the graph says about the input with the owner's description.

    Raises:
        InputError: graph and description disagree, or something that is needed is in neither of them.
    """
    if dtype not in DTYPES:
        raise InputError(f"{model} takes {dtype}, not pixels; it must take {', '.join(DTYPES)}")
    if len(shape) != 4:
        raise InputError(f"{model}: input {name!r} has shape {list(shape)}; it must be a batch of frames, 4 axes")
    if given.size is not None and min(given.size) < 1:
        raise InputError(f"size must be two numbers of 1 or more, got {given.size[0]} {given.size[1]}")
    layout = _layout(model, shape, given)
    height, width = shape[2:] if layout == "nchw" else shape[1:3]
    size = _size(model, (height, width), given, is_bytes=dtype == "tensor(uint8)")
    mean, std, values = _scale(model, given, is_bytes=dtype == "tensor(uint8)")
    batch = shape[0] if isinstance(shape[0], int) else None
    return InputFormat(
        name,
        DTYPES[dtype],
        batch,
        layout,
        size,
        mean,
        std,
        values,
        given.order,
        given.output_layout or layout,
    )


def _layout(model: str, shape: Sequence[int | str | None], given: InputDescription) -> Literal["nchw", "nhwc"]:
    fits = {"nchw": shape[1], "nhwc": shape[3]}
    if given.layout is not None:
        if isinstance(fits[given.layout], int) and fits[given.layout] != 3:
            raise InputError(
                f"{model}: its input {list(shape)} is not {given.layout} of 3 colours; pass the other layout"
            )
        return given.layout
    threes = [layout for layout, channels in fits.items() if channels == 3]
    if len(threes) != 1:
        raise InputError(
            f"{model} is an ONNX model with unknown layout: its input is {list(shape)}; pass --input.layout nchw or "
            "nhwc"
        )
    return "nchw" if threes == ["nchw"] else "nhwc"


def _size(
    model: str, graph: tuple[int | str | None, ...], given: InputDescription, *, is_bytes: bool
) -> tuple[int, int] | None:
    height, width = graph
    if isinstance(height, int) and isinstance(width, int):
        if given.size not in (None, (height, width)):
            raise InputError(f"{model} takes frames of {height}x{width} only, got size {given.size}; leave size out")
        return height, width
    if given.size is None and not is_bytes:
        raise InputError(
            f"{model} takes frames of any size; pass the size it was trained at, such as --input.size 224 224"
        )
    return given.size


def _scale(model: str, given: InputDescription, *, is_bytes: bool) -> tuple[Triple, Triple, Literal["0-1", "0-255"]]:
    plain = replace(given, mean=given.mean or (0.0, 0.0, 0.0), std=given.std or (1.0, 1.0, 1.0))
    assert plain.mean is not None and plain.std is not None
    if is_bytes:
        if given.mean or given.std or given.range == "0-1":
            raise InputError(f"{model} takes bytes and scales them itself; leave out mean, std and range")
        return plain.mean, plain.std, "0-255"
    if (given.mean is None) != (given.std is None):
        raise InputError(f"{model}: mean and std belong together, got mean {given.mean} and std {given.std}; pass both")
    if given.mean is None and given.range is None:
        raise InputError(
            f"{model} takes floats, and its graph does not say their scale; pass --input.mean and --input.std "
            "(ImageNet: 0.485 0.456 0.406 and 0.229 0.224 0.225), or --input.range 0-1 or 0-255 if the model "
            "normalises itself"
        )
    values = given.range or "0-1"
    if min(plain.std) <= 0 or (values == "0-1" and max(*plain.mean, *plain.std) > 1.5):
        raise InputError(
            f"{model}: mean {_listed(plain.mean)} and std {_listed(plain.std)} do not fit pixels in {values}; "
            "pass range 0-255 with them, or divide them by 255"
        )
    return plain.mean, plain.std, values


def _listed(values: Triple) -> str:
    return " ".join(f"{value:.4g}" for value in values)
