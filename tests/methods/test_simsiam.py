"""SimSiam and its ablations, beyond what test_methods.py asks of every method."""

from __future__ import annotations

import pytest
import torch
from methods_kit import build, gradient, make_batch, reference
from torch import nn

from robossl.errors import InputError
from robossl.measure.collapse import std_normalised
from robossl.methods.simclr import SimCLRConfig
from robossl.methods.simsiam import SimSiamConfig
from robossl.views import Batch

SMALL = reference("simsiam").SETTINGS
BANK = reference("simsiam").BANK


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        (SimCLRConfig, {"temperature": 0.0}, "temperature must be positive, got 0.0"),
        (SimCLRConfig, {"projector_layers": 0}, "projector_layers must be 1 or more, got 0"),
        (SimSiamConfig, {"projector_layers": 0}, "projector_layers must be 1 or more, got 0"),
        (SimSiamConfig, {"predictor": "moving_average"}, "set bank_size to the number of frames"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, words, message):
    with pytest.raises(InputError, match=message):
        config(**words)


def test_simclr_views_are_stronger_than_simsiam_s():
    simclr, simsiam = build(SimCLRConfig()).views(), build(SimSiamConfig(**SMALL)).views()
    assert (simclr[0].scale, simclr[0].brightness, simclr[0].interpolation) == ((0.08, 1.0), 0.8, "bicubic")
    assert (simsiam[0].scale, simsiam[0].brightness, simsiam[0].interpolation) == ((0.2, 1.0), 0.4, "bilinear")
    assert len(simclr) == len(simsiam) == 2


@pytest.mark.parametrize(
    ("batch_norm", "projector", "predictor"),
    [("none", 0, 0), ("hidden", 2, 1), ("default", 3, 1), ("all", 3, 2)],  # table 3 of the paper
)
def test_simsiam_batch_norm_is_placed_as_in_its_table_3(batch_norm, projector, predictor):
    method = build(SimSiamConfig(**SMALL, batch_norm=batch_norm))
    for head, expected in ((method.projector, projector), (method.predictor, predictor)):
        assert sum(isinstance(layer, nn.BatchNorm1d) for layer in head) == expected
    assert method(make_batch(method)).value.isfinite()


def test_simsiam_head_is_2048_wide_with_a_bottleneck_of_512():
    method = build(SimSiamConfig())
    widths = [
        [layer.out_features for layer in head if isinstance(layer, nn.Linear)]
        for head in (method.projector, method.predictor)
    ]
    assert widths == [[2048, 2048, 2048], [512, 2048]]
    assert method.constant_lr == ("predictor.",)
    assert build(SimSiamConfig(**SMALL, predictor_lr_decays=True)).constant_lr == ()


def test_simsiam_without_predictor_stop_gradient_only_halves_the_gradient():
    """Section 4.2 of the paper: the two gradients of the symmetric loss point the same way."""
    gradients = []
    for stop in (True, False):
        method = build(SimSiamConfig(**SMALL, predictor="none", stop_gradient=stop))
        gradients.append(gradient(method, make_batch(method)))
    torch.testing.assert_close(gradients[0], gradients[1] / 2, rtol=1e-9, atol=1e-12)


def test_simsiam_fixed_predictor_is_random_and_never_trained():
    method = build(SimSiamConfig(**SMALL, predictor="fixed"))
    assert not any(weight.requires_grad for weight in method.predictor.parameters())
    mlp = build(SimSiamConfig(**SMALL))
    assert all(
        torch.equal(a, b) for a, b in zip(method.predictor.parameters(), mlp.predictor.parameters(), strict=True)
    )
    batch = make_batch(method)
    assert method(batch).value.item() == mlp(batch).value.item()


def test_simsiam_asymmetric_is_the_first_prediction_alone():
    oracle, method = reference("simsiam"), build(SimSiamConfig(**SMALL, symmetric=False))
    batch = make_batch(method)
    loss = method(batch)
    z0, z1 = loss.outputs
    expected = oracle.negative_cosine(method.predictor(z0).tolist(), z1.tolist())
    assert loss.value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
def test_simsiam_moving_average_is_kept_for_every_sample(symmetric):
    oracle, method = reference("simsiam"), build(SimSiamConfig(**SMALL, **BANK, symmetric=symmetric))
    bank: dict[int, list[float]] = {}
    for visit in range(4):
        batch = make_batch(method, seed=visit % 2 * 7)  # overlapping samples, some met again
        loss = method(batch)
        index, (z0, z1) = batch.index.tolist(), (z.tolist() for z in loss.outputs)
        t0, t1 = (oracle.moving_average(bank, index, z, 0.8) for z in (z0, z1))
        expected = oracle.negative_cosine(z0, t1)
        if symmetric:
            expected = (expected + oracle.negative_cosine(z1, t0)) / 2
        assert loss.value.item() == pytest.approx(expected, abs=1e-12)
        for i, a, b in zip(index, t0, t1, strict=True):
            bank[i] = [(x + y) / 2 for x, y in zip(a, b, strict=True)] if symmetric else b


def test_simsiam_bank_keeps_one_of_equal_samples_and_refuses_rows_it_lacks():
    method = build(SimSiamConfig(**SMALL, **BANK))
    batch = make_batch(method)
    z0, z1 = method(Batch(batch.views, index=torch.full((8,), 3))).outputs
    torch.testing.assert_close(method.bank.average[3], (z0[0] + z1[0]) / 2)
    with pytest.raises(InputError, match="bank has 20 rows, got sample 20; set bank_size"):
        method(Batch(batch.views, index=torch.arange(13, 21)))


def test_simsiam_goes_to_collapse_without_stop_gradient():
    """Figure 2 of the paper in kind: the loss falls towards -1 at once, and the spread of the outputs with it."""
    spread, loss = {}, {}
    for stop in (True, False):
        method = build(SimSiamConfig(**SMALL, stop_gradient=stop), dtype=torch.float32)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.5, momentum=0.9)
        for step in range(40):
            out = method(make_batch(method, b=16, seed=step))
            optimizer.zero_grad()
            out.value.backward()
            optimizer.step()
        spread[stop], loss[stop] = std_normalised(out.outputs[0]).item() * 64**0.5, out.value.item()
    assert spread[False] < 0.6 < 0.8 < spread[True]  # of a healthy one
    assert loss[False] < -0.75 < -0.5 < loss[True]
