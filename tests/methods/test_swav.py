"""SwAV, beyond what test_methods.py asks of every method."""

from __future__ import annotations

import warnings

import pytest
import torch
from methods_kit import build, configured, make_batch, reference

from robossl.errors import InputError
from robossl.methods.swav import SwAVConfig, sinkhorn

with warnings.catch_warnings():  # importing lightly imports pytorch_lightning, which warns about its own imports
    warnings.simplefilter("ignore")
    from lightly.loss.swav_loss import SwaVLoss
    from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn

ORACLE = reference("swav")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a positive number, got 0.0"),
        ({"epsilon": -1.0}, r"epsilon must be 0\.0125 or more, got -1\.0"),
        ({"prototypes": 1}, "prototypes must be 2 or more, got 1"),
        ({"sinkhorn_iterations": -1}, "sinkhorn_iterations must be 0 or more, got -1"),
        ({"queue_size": -1}, "queue_size must be 0 or more, got -1"),
        ({"num_local_views": -1}, "num_local_views must be 0 or more, got -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        SwAVConfig(**words)


def cosines(n, k, *, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(n, k, generator=draw, dtype=torch.float64) - 1).to(dtype)


@pytest.mark.parametrize(("n", "k"), [(3, 2), (16, 12), (10, 40)])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_sinkhorn_is_the_formula_and_lightly_s(n, k, iterations):
    scores = cosines(n, k)
    ours = sinkhorn(scores, epsilon=0.05, iterations=iterations)
    torch.testing.assert_close(ours, lightly_sinkhorn(scores, iterations=iterations), rtol=0, atol=1e-12)
    slow = torch.tensor(ORACLE.sinkhorn(scores.tolist(), 0.05, iterations), dtype=torch.float64)
    torch.testing.assert_close(ours, slow, rtol=0, atol=1e-12)


def test_sinkhorn_shares_samples_out_equally_even_where_all_are_nearest_to_one_prototype():
    scores = cosines(64, 8) * 0.1
    scores[:, 3] += 0.9
    codes = sinkhorn(scores, epsilon=0.05, iterations=60)
    torch.testing.assert_close(codes.sum(1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((8,), 8.0, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    plain = sinkhorn(scores, epsilon=0.05, iterations=0)
    torch.testing.assert_close(plain, (scores / 0.05).softmax(1))
    assert plain[:, 3].mean() > 0.9


def test_sinkhorn_holds_in_float32_at_the_ends_of_the_cosine():
    scores = cosines(16, 12).sign()
    exact = sinkhorn(scores, epsilon=0.05, iterations=3)
    torch.testing.assert_close(
        sinkhorn(scores.float(), epsilon=0.05, iterations=3).double(), exact, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("num_local_views", [0, 1, 3])
def test_loss_is_lightly_s(num_local_views):
    method, untouched = (build(configured("swav", num_local_views=num_local_views)) for _ in range(2))
    batch = make_batch(method)
    prototypes = [ORACLE.unit(row) for row in untouched.prototypes.weight.tolist()]
    scores = [
        torch.tensor(ORACLE.scores_of(z, prototypes), dtype=torch.float64)
        for z in ORACLE.features(untouched, batch.views)
    ]
    assert method(batch).value.item() == pytest.approx(SwaVLoss()(scores[:2], scores[2:]).item(), abs=1e-10)


def test_prototypes_have_unit_length_in_every_micro_batch_of_a_step():
    method = build(configured("swav"))
    with torch.no_grad():
        method.prototypes.weight *= 3
    method.before_step(1, 20)
    batch = make_batch(method)
    first = method(batch).value
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12, dtype=torch.float64))
    first.backward()
    again = method(batch)  # a second micro-batch of the step
    again.value.backward()
    assert again.value.item() == pytest.approx(first.item(), abs=1e-12)


def test_prototypes_are_held_for_the_first_steps():
    method = build(configured("swav"))
    for step, steps, held in (
        (0, 20, True),
        (1, 20, True),
        (2, 20, False),
        (312, 100_000, True),
        (313, 100_000, False),
    ):
        method.before_step(step, steps)
        method.zero_grad()
        method(make_batch(method)).value.backward()
        method.after_backward()
        assert (method.prototypes.weight.grad is None) == held


def test_queue_fills_from_its_step_and_helps_once_it_is_full():
    """The fourth batch is shared out together with the two before it, by lightly too."""
    method, plain = build(configured("swav", queue_size=16, queue_from_step=1)), build(configured("swav"))
    batches = [make_batch(method, seed=i) for i in range(4)]
    for step, batch in enumerate(batches):
        method.before_step(step, 1000)
        z = [torch.tensor(each, dtype=torch.float64) for each in ORACLE.features(method, batch.views)]
        full = step == 3
        queued = [queue.rows.clone() for queue in method.queues]
        ours = method(batch).value.item()
        scores = [method.prototypes(each).detach() for each in z]
        rows = [method.prototypes(each).detach() for each in queued] if full else None
        expected = SwaVLoss()(scores[:2], scores[2:], rows).item()
        assert ours == pytest.approx(expected, abs=1e-9)
        assert method.num_queued.item() == 8 * step
        if step:
            for queue, each in zip(method.queues, z, strict=False):
                place = 8 * (step - 1) % 16
                torch.testing.assert_close(queue.rows[place : place + 8], each)
    assert ours != pytest.approx(plain(batches[3]).value.item(), abs=1e-6)


def test_views_are_two_global_and_six_local_crops():
    first, second, *local = configured("swav", num_local_views=6).build(build(configured("swav")).encoder).views()
    assert first == second
    assert (first.size, first.scale, first.hue) == (224, (0.14, 1.0), 0.2)
    assert len(local) == 6
    assert {(view.size, view.scale) for view in local} == {(96, (0.05, 0.14))}
