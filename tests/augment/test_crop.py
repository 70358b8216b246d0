"""The crop: torchvision's pixels in both forms, and a box that says where each pixel came from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from robossl.augment.crop import crop_each, crop_matrix, resize_matrix, signed_box

BOXES = torch.tensor([[0, 0, 60, 90], [7, 11, 24, 31], [30, 40, 30, 50], [3, 5, 16, 16], [10, 2, 9, 7.0]])
FLIPS = torch.tensor([0.0, 1, 0, 1, 1])


@pytest.fixture
def frames():
    """Blocks and noise: what distinguishes filters most."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (5, 3, 6, 9), generator=generator).repeat_interleave(10, 2)
    noise = torch.randint(-40, 40, (5, 3, 60, 90), generator=generator)
    pixels = (blocks.repeat_interleave(10, 3) + noise).clamp(0, 255).to(torch.uint8)
    return pixels.contiguous(memory_format=torch.channels_last)


def torchvisions(frames, interpolation, size=16):
    mode = getattr(reference.InterpolationMode, interpolation.upper())
    crops = [
        reference.resized_crop(f, *b, [size, size], mode, antialias=True)
        for f, b in zip(frames, BOXES.int().tolist(), strict=True)
    ]
    return torch.stack([c.flip(-1) if f else c for c, f in zip(crops, FLIPS, strict=True)]).float()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_cpu_form_has_torchvisions_pixels(frames, interpolation):
    ours = crop_each(frames, torch.arange(5), BOXES, FLIPS, size=16, interpolation=interpolation)
    assert torch.equal(ours, torchvisions(frames, interpolation))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_matrix_form_differs_by_rounding_only(frames, interpolation):
    ours = crop_matrix(frames, BOXES, FLIPS, size=16, interpolation=interpolation)
    difference = (ours - torchvisions(frames, interpolation)).abs()
    assert difference.max() <= 1.0 and difference.mean() <= 0.3, "grey levels"


def test_the_matrix_form_is_torchvisions_in_float(frames):
    ours = crop_matrix(frames, BOXES, FLIPS, size=16, interpolation="bilinear")
    assert (ours - torchvisions(frames.float(), "bilinear")).abs().max() <= 255e-5


def test_rows_may_repeat_and_come_in_any_order(frames):
    rows = torch.tensor([4, 1, 1])
    ours = crop_each(frames, rows, BOXES[rows], FLIPS[rows], size=16, interpolation="bilinear")
    assert torch.equal(ours, torchvisions(frames, "bilinear")[rows])


def test_weights_sum_to_one_and_stay_inside_of_the_crop():
    start, length = torch.tensor([0.0, 13, 60]), torch.tensor([64.0, 5, 4])
    weights = resize_matrix(start, length, source=64, size=24, interpolation="bicubic")
    assert weights.sum(-1) == pytest.approx(torch.ones(3, 24), abs=1e-6)
    pixel = torch.arange(64)
    for row, s, n in zip(weights, start, length, strict=True):
        assert (row[:, (pixel < s) | (pixel >= s + n)] == 0).all()


@st.composite
def cases(draw):
    height, width = draw(st.integers(8, 80)), draw(st.integers(8, 80))
    crop_height, crop_width = draw(st.integers(4, height)), draw(st.integers(4, width))
    top, left = draw(st.integers(0, height - crop_height)), draw(st.integers(0, width - crop_width))
    return (height, width), (top, left, crop_height, crop_width), draw(st.booleans()), draw(st.integers(4, 24))


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from([crop_each, crop_matrix]))
def test_the_box_says_where_each_pixel_came_from(case, crop):
    (height, width), box, flip, size = case
    slope = 255 // max(height, width)  # grey levels a pixel
    x_plane = slope * torch.arange(width).expand(height, width)
    y_plane = slope * torch.arange(height)[:, None].expand(height, width)
    frame = torch.stack([x_plane, y_plane, y_plane]).to(torch.uint8)[None]
    at, flips = torch.tensor([box], dtype=torch.float32), torch.tensor([float(flip)])
    arguments = (frame, torch.zeros(1, dtype=torch.int64), at, flips) if crop is crop_each else (frame, at, flips)
    view = crop(*arguments, size=size, interpolation="bilinear")[0]
    x0, y0, x1, y1 = signed_box(at, flips, torch.tensor([[height, width]]))[0].tolist()
    assert (x0 > x1) == flip
    for plane, (start, stop), length in ((view[0], (x0, x1), width), (view[1].T, (y0, y1), height)):
        low, high = sorted((start * length, stop * length))
        edge = low + (high - low) * (torch.arange(size) + 0.5) / size  # centres, from the frame's edge, pixels
        edge = edge if start < stop else edge.flip(0)
        margin = max((high - low) / size, 0.5)  # nearer to the crop's edge its filter is one-sided
        clear = (edge >= low + margin) & (edge <= high - margin)
        off = (plane - slope * (edge - 0.5)).abs()[:, clear]
        # rounded twice to grey levels; and a filter over whole pixels is off its centre by up to a tenth of one
        assert (off <= 1.01 + 0.1 * slope).all()
