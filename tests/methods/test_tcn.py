"""TCN beyond what test_methods.py and test_temporal.py ask: semi-hard negatives, and what they do to a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from methods_kit import build, configured, make_batch, reference

from robossl.augment.pipeline import Augment
from robossl.data.loader import BatchLoader
from robossl.data.sampler import Sampler
from robossl.measure.collapse import std_normalised
from robossl.methods.tcn import TCNConfig, semi_hard
from robossl.views import Batch

ORACLE = reference("tcn")
CPU = torch.device("cpu")


def test_defaults_are_the_authors_numbers():
    """tensorflow/models, research/tcn/configs/tcn_default.yml."""
    config = TCNConfig()
    assert (config.margin, config.length, config.mining, config.output_dim) == (0.2, 1.0, "semi_hard", 32)


@pytest.mark.parametrize("variant", ORACLE.VARIANTS)
def test_every_variant_is_its_formula(variant):
    method = build(configured("tcn", **ORACLE.VARIANTS[variant]))
    batch = make_batch(method)
    assert method(batch).value.item() == pytest.approx(ORACLE.loss(method, batch), rel=1e-10, abs=1e-12)


def test_semi_hard_is_the_nearest_beyond_the_positive_else_the_farthest_else_nothing():
    distance = torch.tensor([[0.5, 0.3, 0.7, 0.1], [0.5, 0.3, 0.7, 0.1], [0.5, 0.3, 0.7, 0.1]])
    negative = torch.tensor([[True, True, True, True], [True, True, False, True], [False, False, False, False]])
    assert semi_hard(distance, torch.tensor([0.4, 0.6, 0.4]), negative).tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_a_negative_as_near_as_the_positive_is_not_beyond_it():
    distance, negative = torch.tensor([[0.4, 0.9]]), torch.tensor([[True, True]])
    assert semi_hard(distance, torch.tensor([0.4]), negative).item() == pytest.approx(0.9)


def test_gradients_stay_finite_where_a_pair_has_no_negative():
    distance = torch.rand(3, 4, requires_grad=True)
    negative = torch.tensor([[True] * 4, [False] * 4, [False, True, False, False]])
    semi_hard(distance, torch.full((3,), 2.0), negative).sum().backward()
    assert distance.grad.isfinite().all()
    assert distance.grad.sum(1).tolist() == [1.0, 0.0, 1.0]


def test_a_pair_that_is_one_frame_does_not_count():
    method = build(configured("tcn"))
    batch = make_batch(method)
    times = batch.views[0].time_seconds.clone()
    times[:3, 1] = times[:3, 0]  # a pause: the store keeps one frame
    paused = Batch((replace(batch.views[0], time_seconds=times),), batch.index)
    assert method(paused).value.item() == pytest.approx(ORACLE.loss(method, paused), rel=1e-10)
    assert method(paused).value.item() != pytest.approx(method(batch).value.item(), rel=1e-6)


def test_active_is_the_share_of_triplets_that_train():
    for margin, expected in ((1e-9, 0.0), (100.0, 1.0)):
        method = build(configured("tcn", margin=margin))
        assert method(make_batch(method)).metrics["active"].item() == pytest.approx(expected, abs=0.2)


def run(store, **words):
    """The spread of the outputs after 60 steps on real clips, as a share of an even one's."""
    words = {"output_dim": 32, "window_seconds": 0.4, "view": {"size": 32}} | words
    method = build(configured("tcn", **words), dtype=torch.float32)
    specs = method.views()
    sampler = Sampler(store, store.rows(None), seed=0, batch_size=16, epoch_over="episodes")
    loader = BatchLoader(store, sampler, (specs[0].clip,), slice(None), CPU, num_workers=0)
    augment = Augment(specs, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0, device=CPU)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    spreads = []
    for step in range(60):
        loss = method(augment(loader.batch(step)))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        spreads.append(std_normalised(loss.outputs[0]).item() * 32**0.5)
    return sum(spreads[-10:]) / 10


def test_a_short_run_fills_the_sphere_where_the_former_defaults_end_in_a_cone(clip_store):
    now, former = run(clip_store), run(clip_store, margin=2.0, length=10.0, mining="none")
    print(f"spread {now:.2f} of an even one's; of the former defaults {former:.2f}")
    assert now > 0.8
    assert former < now - 0.2


@pytest.mark.parametrize(("words", "pairs"), [({}, 16), ({"mining": "none"}, 7), ({"form": "softmax"}, 8)])
def test_a_micro_batch_weighs_as_much_as_it_has_pairs(words, pairs):
    """Eight clips, one of which has no far frame."""
    method = build(configured("tcn", **words))
    assert method(make_batch(method)).weight == pairs
