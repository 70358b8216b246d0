"""The draws: a pure function of the position, torchvision's law for crops, and the ranges a view declares."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from robossl.augment.random_draws import crop_boxes, draw, uniforms
from robossl.views import OPERATIONS, ViewSpec

SPEC = ViewSpec(rotation_degrees=20.0, turn_p=0.75, solarize_p=0.3)


def drawn(spec=SPEC, position=range(8), *, seed=0, step=0, view=0, num_frames=1, hw=(144, 256)):
    return draw(
        spec,
        seed=seed,
        step=step,
        position=torch.tensor(list(position)),
        view=view,
        num_frames=num_frames,
        source_hw=torch.tensor([hw] * len(position)),
    )


@pytest.mark.parametrize("per_frame", [(), OPERATIONS, ("crop", "blur")])
def test_a_position_draws_the_same_in_any_batch(per_frame):
    spec = replace(SPEC, per_frame=per_frame)
    whole = drawn(spec, range(16), num_frames=3)
    shuffled = [9, 3, 15, 0]
    part = drawn(spec, shuffled, num_frames=3)
    assert all(torch.equal(part[name], whole[name][shuffled]) for name in whole)


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}, {"view": 1}, {"position": range(8, 16)}])
def test_other_seeds_steps_views_and_positions_draw_anew(change):
    before, after = drawn(), drawn(**change)
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert same == []


def test_frames_share_their_draws_unless_independent():
    same = drawn(replace(SPEC, per_frame=()), num_frames=4)
    apart = drawn(replace(SPEC, per_frame=OPERATIONS), num_frames=4)
    assert all(torch.equal(value, value[:, :1].expand_as(value)) for value in same.values())
    assert not torch.equal(apart["crop"], apart["crop"][:, :1].expand(-1, 4, -1))


def test_a_view_shares_the_draws_of_the_first_where_it_is_asked_to():
    first = drawn(view=0)
    later = drawn(replace(SPEC, as_first=("jitter", "turn")), view=2)
    apart = drawn(view=2)
    shared = {"brightness", "contrast", "saturation", "hue", "order", "turns"}
    for name, value in later.items():
        assert torch.equal(value, first[name] if name in shared else apart[name]), name
        assert not torch.equal(first[name], apart[name]), name


def test_turns_are_drawn_as_often_as_declared():
    turns = drawn(replace(SPEC, turn_p=0.6), range(4000))["turns"]
    share = torch.bincount(turns.long().flatten(), minlength=4) / 4000
    assert share.tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.03)
    assert not drawn(ViewSpec(), range(100))["turns"].any()


def test_uniforms_are_uniform_and_uncorrelated():
    u = uniforms(37, seed=-5, step=2**40, view=3, position=np.arange(4000))
    assert u.shape == (4000, 37) and u.min() >= 0 and u.max() < 1
    assert np.abs(u.mean(0) - 0.5).max() < 5 * math.sqrt(1 / 12 / 4000)
    correlation = np.corrcoef(u.T) - np.eye(37)
    assert np.abs(correlation).max() < 5 / math.sqrt(4000)


def test_values_stay_in_the_declared_ranges_and_are_drawn_as_often_as_declared():
    params = {name: value[:, 0] for name, value in drawn(position=range(4000)).items()}
    jittered = params["order"][:, 0] >= 0
    for name, p in {"flip": 0.5, "gray": 0.2, "solarize": 0.3}.items():
        assert params[name].mean().item() == pytest.approx(p, abs=0.04)
    assert jittered.float().mean().item() == pytest.approx(0.8, abs=0.04)
    assert (params["sigma"] > 0).float().mean().item() == pytest.approx(0.5, abs=0.04)
    on = params["sigma"][params["sigma"] > 0]
    assert on.min() >= 0.1 and on.max() <= 2.0 and on.max() > 1.95
    assert params["angle"].abs().max() <= 20 and params["angle"].min() < -19
    for name in ("brightness", "contrast", "saturation"):
        assert params[name].min() >= 0.6 and params[name].max() <= 1.4
        assert bool((params[name][~jittered] == 1).all())
    assert params["hue"].abs().max() <= 0.1 and bool((params["hue"][~jittered] == 0).all())
    orders, counts = np.unique(params["order"][jittered].numpy(), axis=0, return_counts=True)
    assert len(orders) == 24 and counts.min() > 0.5 * counts.mean()


def test_an_operation_without_strength_is_not_in_the_order():
    params = drawn(ViewSpec(jitter_p=1.0, hue=0.0, contrast=0.0), range(64))
    assert set(params["order"].unique().tolist()) == {-1.0, 0.0, 2.0}


@pytest.mark.parametrize(("height", "width"), [(144, 256), (256, 144), (100, 110)])
def test_boxes_follow_torchvisions_law_step_by_step(height, width):
    scale, ratio = (0.7, 1.0), (3 / 4, 4 / 3)
    u = uniforms(40, seed=0, step=0, view=0, position=np.arange(500))
    boxes = crop_boxes(u[:, None], np.array([[[height, width]]] * 500, float), scale=scale, ratio=ratio)[:, 0]
    fallbacks = 0
    for row, box in zip(u, boxes, strict=True):
        for area_u, ratio_u in zip(row[:10], row[10:20], strict=True):
            area = height * width * (scale[0] + (scale[1] - scale[0]) * area_u)
            aspect = math.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * ratio_u)
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(row[20] * (height - h + 1)), int(row[21] * (width - w + 1))
                break
        else:
            fallbacks += 1
            w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
            top, left = (height - h) // 2, (width - w) // 2
        assert box.tolist() == [top, left, h, w]
    assert (fallbacks > 0) == (width != 110)


@pytest.mark.parametrize("hw", [(144, 256), (300, 40)])
def test_boxes_are_distributed_as_torchvisions(hw):
    reference = v2.RandomResizedCrop(8, (0.08, 1.0))
    torch.manual_seed(0)
    image = torch.empty(3, *hw)
    theirs = [reference.make_params([image]) for _ in range(1500)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in theirs], float)
    ours = drawn(ViewSpec(scale=(0.08, 1.0)), range(1500), hw=hw)["crop"][:, 0].numpy()
    for column in range(4):
        levels = np.unique(np.concatenate([ours[:, column], theirs[:, column]]))
        cdf = [np.searchsorted(np.sort(x[:, column]), levels, "right") / 1500 for x in (ours, theirs)]
        assert np.abs(cdf[0] - cdf[1]).max() < 1.95 * math.sqrt(2 / 1500)  # Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize("hw", [(1, 1), (1, 500), (500, 1), (7, 9)])
def test_boxes_lie_inside_of_small_and_long_frames(hw):
    boxes = drawn(ViewSpec(scale=(0.01, 1.0)), range(300), hw=hw)["crop"]
    top, left, height, width = boxes.unbind(-1)
    assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
    assert (top + height).max() <= hw[0] and (left + width).max() <= hw[1]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_operation_alone_can_be_drawn_anew_for_every_frame(operation):
    apart = drawn(replace(SPEC, per_frame=(operation,)), num_frames=4)
    owners = {
        "crop": {"crop"},
        "flip": {"flip"},
        "rotation": {"angle"},
        "turn": {"turns"},
        "jitter": {"brightness", "contrast", "saturation", "hue", "order"},
        "grayscale": {"gray"},
        "blur": {"sigma"},
        "solarize": {"solarize"},
    }
    for name, value in apart.items():
        assert torch.equal(value, value[:, :1].expand_as(value)) == (name not in owners[operation]), name
