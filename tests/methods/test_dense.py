"""Matched bins: as a slow double loop has them for any crops, and the same scene point on a real frame."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods_kit import reference
from torch.nn import functional as F

from robossl.augment.pipeline import Augment
from robossl.data.store import Store
from robossl.errors import InputError
from robossl.methods.parts.dense import (
    bin_centres,
    bin_diagonals,
    bins,
    centre_bin,
    check_boxes,
    matched_bins,
    matched_views,
)
from robossl.views import ClipSpec, RawBatch, RawFrames, ViewSpec

ORACLE = reference("pixpro")
GRIDS = st.tuples(st.integers(1, 7), st.integers(1, 7))
HW = st.tuples(st.integers(16, 400), st.integers(16, 400))
THRESHOLD = 0.7


@st.composite
def boxes(draw):
    """Signed corners: any crop, flipped or not."""
    left, top = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    right = left + draw(st.floats(0.05, 1.0)) * (1 - left)
    bottom = top + draw(st.floats(0.05, 1.0)) * (1 - top)
    return [right, top, left, bottom] if draw(st.booleans()) else [left, top, right, bottom]


def tensors(box, other, hw):
    return (
        torch.tensor([box], dtype=torch.float64),
        torch.tensor([other], dtype=torch.float64),
        torch.tensor([hw]),
    )


def match(box, other, hw, grids, threshold=THRESHOLD):
    box, other, source_hw = tensors(box, other, hw)
    return matched_bins((box, other), source_hw, grids, threshold=threshold)[0]


@settings(max_examples=80, deadline=None)
@given(boxes(), boxes(), HW, GRIDS, GRIDS)
def test_any_crops_match_as_in_a_double_loop(box, other, hw, grid, other_grid):
    expected = torch.tensor(ORACLE.distances(box, other, hw, grid, other_grid), dtype=torch.float64)
    clear = (expected - THRESHOLD).abs() > 1e-9
    found = match(box, other, hw, (grid, other_grid))
    assert torch.equal(found[clear], (expected < THRESHOLD)[clear])


@settings(max_examples=40, deadline=None)
@given(boxes(), boxes(), HW, GRIDS, GRIDS)
def test_swapping_the_views_transposes(box, other, hw, grid, other_grid):
    there, back = match(box, other, hw, (grid, other_grid)), match(other, box, hw, (other_grid, grid))
    assert torch.equal(there, back.T)


@settings(max_examples=40, deadline=None)
@given(boxes(), boxes(), HW, GRIDS, GRIDS)
def test_flipping_a_view_mirrors_its_columns(box, other, hw, grid, other_grid):
    flipped = [box[2], box[1], box[0], box[3]]
    rows, columns = grid
    args = (other, hw, (grid, other_grid), 0.713)  # no multiple of a half: rounding cannot decide
    plain, mirrored = match(box, *args), match(flipped, *args)
    expected = plain.view(rows, columns, -1).flip(1).flatten(0, 1)
    assert (mirrored != expected).sum() <= 0.02 * expected.numel()


@settings(max_examples=40, deadline=None)
@given(boxes(), HW, GRIDS)
def test_a_view_matches_itself_on_the_diagonal(box, hw, grid):
    found = match(box, box, hw, (grid, grid))
    assert found.diagonal().all()
    assert torch.equal(found, found.T)


def test_frames_are_not_square_and_distance_is_in_pixels():
    """On a frame 100 x 400 a bin of a 2 x 2 grid is 50 x 200: below lies near, beside lies far."""
    whole = [0.0, 0.0, 1.0, 1.0]
    found = match(whole, whole, (100, 400), ((2, 2), (2, 2)))
    assert found.tolist() == [[i % 2 == j % 2 for j in range(4)] for i in range(4)]
    square = match(whole, whole, (400, 400), ((2, 2), (2, 2)), threshold=0.72)
    assert square.tolist() == [[i == j or i + j != 3 for j in range(4)] for i in range(4)]


def test_centres_and_diagonals_in_source_pixels():
    box, flipped, hw = tensors([0.25, 0.5, 0.75, 1.0], [0.75, 0.5, 0.25, 1.0], (100, 200))
    centres = bin_centres(box, hw, (1, 2))
    assert centres.tolist() == [[[75.0, 75.0], [125.0, 75.0]]]
    assert torch.equal(bin_centres(flipped, hw, (1, 2)), centres.flip(1))
    assert bin_diagonals(flipped, hw, (1, 2)).item() == pytest.approx((50**2 + 50**2) ** 0.5)


def test_far_crops_match_nowhere():
    assert not match([0.0, 0.0, 0.2, 0.2], [0.8, 0.8, 1.0, 1.0], (48, 64), ((7, 7), (7, 7))).any()


def test_views_that_cannot_be_placed_are_refused():
    check_boxes(ViewSpec())
    with pytest.raises(InputError, match="rotated views cannot be matched, got rotation_degrees 5"):
        check_boxes(ViewSpec(rotation_degrees=5.0))
    with pytest.raises(InputError, match=r"and turn_p 0\.75; set both to 0"):
        check_boxes(ViewSpec(turn_p=0.75))
    with pytest.raises(InputError, match="must be single frames, got clips of 4"):
        check_boxes(ViewSpec(), ViewSpec(clip=ClipSpec(num_frames=4)))


def test_bins_run_row_by_row_as_the_centres_do():
    x = torch.arange(24.0).view(1, 2, 3, 4)
    assert bins(x)[0, 5].tolist() == x[0, :, 1, 1].tolist()
    assert centre_bin(x).tolist() == [x[0, :, 1, 2].tolist()]


GEOMETRY = ViewSpec(size=112, scale=(0.2, 0.8), jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


@pytest.fixture
def real(clip_store: Store):
    """Two views of real frames, nothing done to them but crop and flip; and the frames in 0 to 1."""
    rows = clip_store.rows(None)[:: max(1, clip_store.num_frames // 12)][:12]
    decoded = clip_store.decode(rows)
    pixels = torch.stack([frame for frame in decoded if frame.shape == decoded[0].shape])
    n, _, h, w = pixels.shape
    assert n >= 6 and h != w
    hw, valid = torch.tensor([[h, w]]).repeat(n, 1), torch.ones(n, 1, dtype=torch.bool)
    frames = RawFrames(pixels.unsqueeze(1), hw, torch.zeros(n, 1), valid)
    raw = RawBatch(0, torch.arange(n), torch.arange(n), {GEOMETRY.clip: frames})
    augment = Augment((GEOMETRY, GEOMETRY), mean=(0, 0, 0), std=(1, 1, 1), seed=0, device=torch.device("cpu"))
    views = augment(raw).views
    flips = torch.cat([view.box[:, 0] > view.box[:, 2] for view in views])
    assert flips.any() and not flips.all()
    return views, pixels.float() / 255


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def test_the_centre_of_a_bin_shows_that_place_of_a_real_frame(real):
    views, frames = real
    grid = (7, 7)
    h, w = frames.shape[-2:]
    for view in views:
        place = bin_centres(view.box, view.source_hw, grid) / torch.tensor([w, h]) * 2 - 1
        source = F.grid_sample(frames, place.unsqueeze(1).float(), align_corners=False).squeeze(2)
        seen = F.interpolate(view.pixels, grid, mode="bilinear", align_corners=False, antialias=False).flatten(2)
        assert correlation(source, seen) > 0.97
        assert correlation(source, seen.flip(-1)) < 0.8


def test_matched_bins_of_a_real_frame_show_the_same_patch_and_others_do_not(real):
    views, _ = real
    (first, second), (means, other_means) = views, [bins(F.avg_pool2d(view.pixels, 16)) for view in views]
    maps = (torch.zeros(len(first.box), 1, 7, 7), torch.zeros(len(first.box), 1, 7, 7))

    def agreement(pairs):
        image, i, j = pairs.nonzero(as_tuple=True)
        return correlation(means[image, i], other_means[image, j])

    matched = matched_views((first, second), maps, threshold=THRESHOLD)
    near = matched_views((first, second), maps, threshold=0.25)
    boxes = (first.box, second.box[:, [2, 1, 0, 3]])
    unflipped = matched_bins(boxes, first.source_hw, ((7, 7), (7, 7)), threshold=0.25)
    assert 0.005 < matched.float().mean() < 0.2
    assert agreement(near) > 0.95
    assert agreement(near) > agreement(matched) > 0.85
    assert agreement(~matched) < 0.5
    assert agreement(unflipped) < 0.7
