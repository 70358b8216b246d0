"""PixPro and PixContrast, beyond what test_methods.py asks of every method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from methods_kit import build, configured, make_batch, reference

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.methods.pixcontrast import PixContrastConfig, pixel_contrast
from robossl.methods.pixpro import PixProConfig, pixel_consistency
from robossl.views import Batch, ViewSpec

PIXPRO, PIXCONTRAST = reference("pixpro"), reference("pixcontrast")


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        (PixProConfig, {"threshold": 0.0}, "threshold must be positive, got 0.0"),
        (PixProConfig, {"sharpness": 0.5}, "sharpness must be 1 or more, got 0.5"),
        (PixProConfig, {"transform_layers": 3}, "transform_layers must be 0, 1 or 2, got 3"),
        (PixProConfig, {"view_1": ViewSpec(rotation_degrees=9.0)}, "rotated views cannot be matched"),
        (PixContrastConfig, {"temperature": 0.0}, "temperature must be positive, got 0.0"),
        (PixContrastConfig, {"threshold": -1.0}, "threshold must be positive, got -1.0"),
        (PixContrastConfig, {"view_0": ViewSpec(rotation_degrees=9.0)}, "rotated views cannot be matched"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, words, message):
    with pytest.raises(InputError, match=message):
        config(**words)


@pytest.mark.parametrize("variant", PIXPRO.VARIANTS)
def test_every_variant_of_pixpro_is_its_formula(variant):
    words = PIXPRO.VARIANTS[variant]
    method, untouched = (build(configured("pixpro", **words)) for _ in range(2))
    batch = make_batch(method)
    assert method(batch).value.item() == pytest.approx(PIXPRO.loss(untouched, batch), abs=1e-12)


def rows(seed, n=5, d=4, b=3):
    return torch.randn(b, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_an_image_without_a_match_counts_as_zero_and_has_no_gradient():
    x, other = rows(0).requires_grad_(), rows(1)
    matched = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.3
    matched[1] = False
    matched[2, 3] = False  # a pixel without a match
    for ours, slow, words in (
        (pixel_consistency(x, other, matched), PIXPRO.consistency, ()),
        (pixel_contrast(x, other, matched, temperature=0.3), PIXCONTRAST.contrast, (0.3,)),
    ):
        each = [slow(a, b, m, *words) for a, b, m in zip(x.tolist(), other.tolist(), matched.tolist(), strict=True)]
        assert each[1] == 0.0
        assert ours.item() == pytest.approx(sum(each) / 3, abs=1e-12)
        (gradient,) = torch.autograd.grad(ours, x)
        assert gradient.isfinite().all()
        assert not gradient[1].any()
        assert gradient[[0, 2]].any()


def test_losses_of_views_that_match_nowhere_are_zero():
    for name in ("pixpro", "pixcontrast"):
        method = build(configured(name))
        batch = make_batch(method)
        near, far = (torch.tensor(box).repeat(8, 1) for box in ([0.0, 0.0, 0.1, 0.1], [0.9, 0.9, 1.0, 1.0]))
        views = tuple(replace(view, box=box) for view, box in zip(batch.views, (near, far), strict=True))
        loss = method(Batch(views, batch.index))
        loss.value.backward()
        assert loss.value.item() == 0.0
        assert loss.metrics["matched"].item() == 0.0
        assert all(not weight.grad.any() for weight in method.parameters() if weight.grad is not None)


def test_official_pixpro_lies_between_minus_4_and_4_and_the_paper_s_in_half_of_it():
    for variant, bound in (("paper", 2.0), ("official", 4.0)):
        method = build(configured("pixpro", variant=variant))
        batch = make_batch(method)
        same = Batch((batch.views[0], batch.views[0]), batch.index)
        assert method.propagation(method.projector(method.encoder(batch.views[0].pixels).dense)).shape == (8, 9, 12)
        x = rows(2)
        assert pixel_consistency(x, x, torch.eye(5, dtype=torch.bool).repeat(3, 1, 1)).item() == pytest.approx(-1.0)
        assert -bound <= method(same).value.item() <= bound


def test_official_pixpro_matches_by_fractions_which_differ_on_frames_that_are_not_square():
    batch = make_batch(build(configured("pixpro")))

    def matched(variant, hw):
        source_hw = torch.tensor([hw]).repeat(8, 1)
        views = tuple(replace(view, source_hw=source_hw) for view in batch.views)
        return build(configured("pixpro", variant=variant))(Batch(views, batch.index)).metrics["matched"].item()

    assert matched("paper", (64, 64)) == matched("official", (64, 64)) == matched("official", (36, 64))
    assert matched("paper", (16, 64)) != matched("official", (16, 64))


def test_the_official_branch_between_frames_pools_after_its_heads():
    paper, official = (
        build(configured("pixpro", variant=variant, instance_weight=1.0)).instance for variant in ("paper", "official")
    )
    assert [type(part.projector[0]).__name__ for part in (paper, official)] == ["Linear", "Conv2d"]
    assert [type(part.predictor[0]).__name__ for part in (paper, official)] == ["Linear", "Conv2d"]


def test_propagation_smooths_over_the_pixels_like_it():
    propagation = build(configured("pixpro", transform_layers=0, sharpness=2.0)).propagation
    x = torch.zeros(1, 12, 1, 3, dtype=torch.float64)
    x[0, 0, 0, 0], x[0, :2, 0, 1], x[0, 0, 0, 2] = 1.0, torch.tensor([1.0, 1.0], dtype=torch.float64), -1.0
    y = propagation(x)[0, :, :2]
    expected = [[1 + 0.5, 0.5], [1 + 0.5, 1.0], [-1.0, 0.0]]  # cos 45 degrees squared is a half; opposites do not meet
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", ["pixpro", "pixcontrast"])
def test_teacher_follows_encoder_and_projector_alone_and_stops_at_the_end(name):
    method = build(configured(name))
    weight, copied = method.projector[0].weight, method.teacher.copies[1][0].weight
    with torch.no_grad():
        weight += 1
    method.after_step(1.0)
    assert (weight - copied).mean().item() == pytest.approx(1.0)
    method.after_step(0.0)
    assert (weight - copied).mean().item() == pytest.approx(0.99)
    assert not any(each.requires_grad for each in method.teacher.parameters())
    assert len(method.teacher.copies) == 2


@pytest.mark.parametrize("name", ["pixpro", "pixcontrast"])
def test_patches_of_a_vit_are_pixels_too(name):
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig("vit_tiny_patch16_224", input_hw=(48, 48)))
    method = configured(name).build(encoder)
    batch = make_batch(build(configured(name), dtype=torch.float32))
    views = tuple(replace(view, pixels=view.pixels[..., :48, :48]) for view in batch.views)
    loss = method(Batch(views, batch.index))
    loss.value.backward()
    assert loss.value.isfinite()
    assert loss.outputs[0].shape == (8, 12)
    assert method.projector[0].weight.grad.any()
