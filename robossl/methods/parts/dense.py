"""Pixel matching: find bins of two views' feature maps that show the same place (section 3.1 of arXiv:2011.10043).

A bin is one cell of a feature map, and a view is a crop of the source frame. Distances are measured in pixels of the
source frame. Fractions of its width and height would distort distances, because frames of robots are not square. The
authors' code uses fractions (option `in_fractions`). On square frames, both give the same result.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from robossl.errors import InputError
from robossl.views import View, ViewSpec

Grid = tuple[int, int]  # rows and columns of a feature map


def bin_centres(box: Float[Tensor, "b 4"], source_hw: Int[Tensor, "b 2"], grid: Grid) -> Float[Tensor, "b n 2"]:
    """Return the centre (x, y) of each bin (feature-map cell), in pixels of the source frame, row by row."""
    x0, y0, x1, y1 = _corners(box, source_hw).unsqueeze(-1).unbind(1)
    rows, columns = grid
    across = (torch.arange(columns, device=box.device) + 0.5) / columns
    down = (torch.arange(rows, device=box.device) + 0.5) / rows
    x, y = x0 + across * (x1 - x0), y0 + down * (y1 - y0)
    return torch.stack([x[:, None, :].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, columns)], -1).flatten(1, 2)


def bin_diagonals(box: Float[Tensor, "b 4"], source_hw: Int[Tensor, "b 2"], grid: Grid) -> Float[Tensor, " b"]:
    """Return the length of the diagonal of a bin (feature-map cell) for each view, in pixels of the source frame."""
    x0, y0, x1, y1 = _corners(box, source_hw).unbind(1)
    rows, columns = grid
    return torch.hypot((x1 - x0) / columns, (y1 - y0) / rows)


def matched_bins(
    boxes: tuple[Float[Tensor, "b 4"], Float[Tensor, "b 4"]],
    source_hw: Int[Tensor, "b 2"],
    grids: tuple[Grid, Grid],
    *,
    threshold: float,
) -> Bool[Tensor, "b n m"]:
    """Return A(i, j) of the paper's equation 1: whether bin i of one view is near bin j of the other view.

    A bin is a cell of a view's feature map. It is near another bin if their centres are near in the source frame.

    Args:
        boxes: corners x0 y0 x1 y1 of the two views in fractions of the frame; x0 > x1 if a view is flipped.
        source_hw: height and width of the source frames in pixels.
        grids: rows and columns of the two feature maps.
        threshold: largest distance between the centres of two bins that match. The unit is the longer of their two
            diagonals.
    """
    (x, y), (other_x, other_y) = (
        bin_centres(box, source_hw, grid).unbind(-1) for box, grid in zip(boxes, grids, strict=True)
    )
    distance = torch.hypot(x[:, :, None] - other_x[:, None, :], y[:, :, None] - other_y[:, None, :])
    diagonal = torch.maximum(*(bin_diagonals(box, source_hw, grid) for box, grid in zip(boxes, grids, strict=True)))
    return distance < threshold * diagonal[:, None, None]


def matched_views(
    views: tuple[View, View],
    maps: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c H W"]],
    *,
    threshold: float,
    in_fractions: bool = False,
) -> Bool[Tensor, "b n m"]:
    """Return which bins (feature-map cells) of two views match, see `matched_bins`.

    With `in_fractions`, distances are in fractions of the frame's width and height, as in the authors' code.
    """
    first, second = (view.box for view in views)
    assert first is not None and second is not None
    grids = tuple((each.shape[-2], each.shape[-1]) for each in maps)
    hw = torch.ones_like(views[0].source_hw) if in_fractions else views[0].source_hw
    return matched_bins((first, second), hw, (grids[0], grids[1]), threshold=threshold)


def check_boxes(*specs: ViewSpec) -> None:
    """Refuse views whose bins (feature-map cells) cannot be located in the source frame.

    Raises:
        InputError: a view is a clip, or its specification allows rotations or quarter turns.
    """
    for spec in specs:
        if spec.rotation_degrees or spec.turn_p:
            raise InputError(
                f"pixels of rotated views cannot be matched, got rotation_degrees {spec.rotation_degrees} and "
                f"turn_p {spec.turn_p}; set both to 0"
            )
        if spec.clip.num_frames:
            raise InputError(f"views must be single frames, got clips of {spec.clip.num_frames}; set num_frames to 0")


def pixel_projector(dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Return the head of the bins (cells): two 1 x 1 convolutions, batch-norm and ReLU between them (section 3.1)."""
    return nn.Sequential(
        nn.Conv2d(dim, hidden_dim, 1, bias=False),  # no bias, because batch-norm would remove it
        nn.BatchNorm2d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden_dim, output_dim, 1),
    )


def bins(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Return the feature vectors of all bins (cells) of a feature map, row by row."""
    return x.flatten(2).mT


def centre_bin(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
    """Return the feature vector of the middle bin (cell) of each feature map, for the collapse monitor.

    The middle bin is at the same position in every map. If outputs depend on nothing but the position, these vectors
    are all equal, so the monitor reports a collapse.
    """
    return x[:, :, x.shape[2] // 2, x.shape[3] // 2]


def _corners(box: Tensor, source_hw: Tensor) -> Tensor:
    # A list of columns as an index would be copied to the GPU, and the program would wait for that.
    return box * source_hw.flip(1).repeat(1, 2)
