"""BYOL beyond what test_methods.py asks of every method."""

from __future__ import annotations

import math

import pytest
import torch
from methods_kit import build, configured, make_batch, reference, train_twice

from robossl.errors import InputError
from robossl.measure.collapse import std_normalised
from robossl.methods.byol import BYOLConfig


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(InputError, match=r"momentum must lie in 0 to 1, got 1.5"):
        BYOLConfig(momentum=1.5)


def test_views_differ_in_blur_and_solarization_as_in_table_6():
    first, second = build(configured("byol")).views()
    assert (first.blur_p, first.solarize_p, second.blur_p, second.solarize_p) == (1.0, 0.0, 0.1, 0.2)
    for view in (first, second):
        assert (view.scale, view.interpolation) == ((0.08, 1.0), "bicubic")
        assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.4, 0.4, 0.2, 0.1)


def test_heads_are_the_paper_s():
    method = build(BYOLConfig(), dtype=torch.float32)
    assert [tuple(head[0].weight.shape) for head in (method.projector, method.predictor)] == [
        (4096, method.encoder.feature_dim),
        (4096, 256),
    ]
    assert method.projector[-1].weight.shape == method.predictor[-1].weight.shape == (256, 4096)
    assert method.projector[-1].bias is None


def test_target_follows_after_the_step_by_the_paper_s_schedule():
    method = build(configured("byol", momentum=0.6))
    before = [weight.clone() for weight in method.target.parameters()]
    students = [*method.encoder.parameters(), *method.projector.parameters()]
    with torch.no_grad():
        for weight in students:
            weight.add_(1.0)
    method.after_step(0.25)
    tau = 1 - (1 - 0.6) * (math.cos(math.pi * 0.25) + 1) / 2
    for old, student, target in zip(before, students, method.target.parameters(), strict=True):
        torch.testing.assert_close(target, tau * old + (1 - tau) * student)
    stopped = [weight.clone() for weight in method.target.parameters()]
    method.after_step(1.0)
    assert all(torch.equal(old, new) for old, new in zip(stopped, method.target.parameters(), strict=True))


def test_loss_is_the_paper_s_once_target_and_student_differ():
    method = build(configured("byol"))
    train_twice(method, method)
    batch = make_batch(method, seed=5)
    expected = reference("byol").loss(method, batch)
    assert method(batch).value.item() == pytest.approx(expected, abs=1e-12)
    method.target.update(method.encoder, method.projector, momentum=0.0)
    assert method(batch).value.item() != pytest.approx(expected, abs=1e-4)


def test_fixed_target_never_moves_and_does_not_collapse():
    """The experiment that BYOL came from: section 3.1 of the paper."""
    method = build(configured("byol", target="fixed"), dtype=torch.float32)
    before = [weight.clone() for weight in method.target.parameters()]
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.3, momentum=0.9)
    for step in range(25):
        out = method(make_batch(method, b=16, seed=step))
        optimizer.zero_grad()
        out.value.backward()
        optimizer.step()
        method.after_step((step + 1) / 25)
    assert all(torch.equal(old, new) for old, new in zip(before, method.target.parameters(), strict=True))
    assert std_normalised(out.outputs[0]).item() * 32**0.5 > 0.5
