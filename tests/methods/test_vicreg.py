"""VICReg beyond what test_methods.py asks of every method."""

from __future__ import annotations

import warnings

import pytest
import torch
from methods_kit import build, configured, make_batch

from robossl.errors import InputError
from robossl.methods.vicreg import VICRegConfig, covariance, variance

with warnings.catch_warnings():  # importing lightly imports pytorch_lightning, which warns about its own imports
    warnings.simplefilter("ignore")
    from lightly.loss import VICRegLoss


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"expander_layers": 0}, "expander_layers must be 1 or more, got 0"),
        ({"covariance_weight": -1.0}, r"must not be negative, got \(25.0, 25.0, -1.0\)"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        VICRegConfig(**words)


def test_loss_equals_lightly():
    method = build(configured("vicreg"))
    loss = method(make_batch(method))
    assert abs(loss.value - VICRegLoss()(*loss.outputs)) < 1e-12 * loss.value


def test_sum_over_branches_doubles_the_variance_term_alone():
    terms = {}
    for over in ("mean", "sum"):
        method = build(configured("vicreg", variance_over=over))
        terms[over] = method(make_batch(method))
    mean, total = terms["mean"].metrics, terms["sum"].metrics
    assert total["variance"] == 2 * mean["variance"]
    assert (total["invariance"], total["covariance"]) == (mean["invariance"], mean["covariance"])
    assert (terms["sum"].value - terms["mean"].value).item() == pytest.approx(25 * mean["variance"].item())


def test_variance_is_a_hinge_and_its_gradient_is_finite_at_a_collapse():
    z = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    lacking = variance(z, target_std=1.0, epsilon=1e-4)
    lacking.backward()
    assert lacking.item() == pytest.approx(1 - 0.01)
    assert z.grad.isfinite().all()
    wide = torch.tensor([[-9.0], [9.0]], dtype=torch.float64)
    assert variance(wide, target_std=1.0, epsilon=1e-4) == 0


def test_covariance_is_of_different_channels_only():
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(9, 5, generator=draw, dtype=torch.float64)
    expected = torch.cov(z.T)
    expected.fill_diagonal_(0)
    assert covariance(z).item() == pytest.approx((expected.square().sum() / 5).item(), rel=1e-12)
    assert covariance(z[:, :1]).item() == pytest.approx(0)
