"""LooC beyond what test_methods.py asks of every method."""

from __future__ import annotations

import pytest
import torch
from methods_kit import build, configured, make_batch
from torch.nn import functional as F

from robossl.errors import InputError
from robossl.methods.looc import LooCConfig, looc_loss
from robossl.methods.moco import info_nce


def unit_rows(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"momentum": 1.5}, "momentum must lie in 0 to 1, got 1.5"),
        ({"queue_size": 0}, "queue_size and batch_norm_groups must be 1 or more, got 0 and 8"),
        ({"kept": ()}, r"kept must name the operations of one space or more, got \(\)"),
        ({"kept": (("turn",), ())}, "kept must name the operations of one space or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        LooCConfig(**words)


def test_an_operation_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="rotate"):
        configured("looc", kept=[["rotate"]])


def test_one_space_that_keeps_nothing_is_moco():
    q, k, queue = unit_rows(6, 1, 16), unit_rows(1, 6, 1, 16, seed=1), unit_rows(1, 30, 16, seed=2)
    expected = info_nce(q[:, 0], k[0, :, 0], queue[0], temperature=0.2)
    torch.testing.assert_close(looc_loss(q, k, queue, temperature=0.2), expected, rtol=1e-12, atol=1e-12)


def test_a_space_draws_its_own_key_and_pushes_the_others_away():
    q, queue = unit_rows(4, 3, 16).requires_grad_(), unit_rows(3, 20, 16, seed=2)
    k = unit_rows(3, 4, 3, 16, seed=1)
    looc_loss(q, k, queue, temperature=0.2).backward()
    along = -torch.einsum("bsd,vbsd->svb", q.grad, k)  # a descent step moves the query towards a key where positive
    assert along.shape == (3, 3, 4)
    for space in (1, 2):
        others = [view for view in range(3) if view != space]
        assert (along[space, space] > along[space, others]).all()


def test_views_share_with_the_query_what_their_space_keeps():
    views = (
        configured("looc", kept=[["turn"], ["jitter", "grayscale"], ["blur"]])
        .build(build(configured("looc")).encoder)
        .views()
    )
    assert [view.as_first for view in views] == [(), (), ("turn",), ("jitter", "grayscale"), ("blur",)]


def test_each_queue_holds_the_positives_of_its_own_space():
    method = build(configured("looc", queue_size=10, batch_norm_groups=1))
    batch = make_batch(method)
    keys = [method.keys(view.pixels) for view in batch.views[1:]]
    loss = method(batch)
    for space, queue in enumerate(method.queues):
        torch.testing.assert_close(queue.rows[:8], keys[space][:, space].to(queue.rows.dtype))
    assert set(loss.metrics) == {"kept_jitter_grayscale", "kept_turn"}
    assert all(0 <= value <= 1 for value in loss.metrics.values())
    with pytest.raises(InputError, match=r"a queue of 10 is smaller than the batch of 12"):
        method(make_batch(method, b=12))
