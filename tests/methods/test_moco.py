"""MoCo beyond what test_methods.py asks of every method."""

from __future__ import annotations

import warnings

import pytest
import torch
from methods_kit import SIZE, build, configured, make_batch, train_twice
from pytorch_metric_learning.losses import NTXentLoss as MetricLearningNTXent
from torch import nn
from torch.nn import functional as F

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.methods.moco import MoCoConfig, info_nce
from robossl.methods.parts.batch_norm import SplitBatchNorm

with warnings.catch_warnings():  # importing lightly imports pytorch_lightning, which warns about its own imports
    warnings.simplefilter("ignore")
    from lightly.loss import NTXentLoss


def unit_rows(b, d=16, *, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(b, d, generator=draw, dtype=torch.float64), dim=1).to(dtype)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"momentum": -0.1}, r"momentum must lie in 0 to 1, got -0.1"),
        ({"queue_size": 0}, "queue_size and batch_norm_groups must be 1 or more, got 0 and 8"),
        ({"batch_norm_groups": 0}, "must be 1 or more, got 65536 and 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        MoCoConfig(**words)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_loss_equals_metric_learning_in_double_and_lightly_in_float(temperature):
    q, k, queue = unit_rows(6), unit_rows(6, seed=1), unit_rows(30, seed=2)
    ours = info_nce(q, k, queue, temperature=temperature)
    anchors = torch.arange(6)
    negatives = (anchors.repeat_interleave(30), torch.arange(30).repeat(6) + 6)
    peer = MetricLearningNTXent(temperature=temperature)
    theirs = peer(
        q,
        indices_tuple=(anchors, anchors, *negatives),
        ref_emb=torch.cat([k, queue]),
        labels=None,
        ref_labels=None,
    )
    assert abs(ours - theirs) < 1e-12
    lightly = NTXentLoss(temperature=temperature, memory_bank_size=(30, 16))
    lightly.memory_bank.bank = queue.float()
    lightly.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    torch.testing.assert_close(lightly(q.float().requires_grad_(), k.float()).double(), ours, rtol=1e-6, atol=1e-6)


def test_version_1_and_2_differ_in_head():
    widths = []
    for head in ("mlp", "linear"):
        method = build(configured("moco", head=head, output_dim=128))
        widths.append([layer.out_features for layer in method.projector if isinstance(layer, nn.Linear)])
        assert not any(isinstance(layer, SplitBatchNorm) for layer in method.projector)
    assert widths == [[method.encoder.feature_dim, 128], [128]]


def test_queue_holds_the_last_keys_of_batches_of_odd_sizes():
    method = build(configured("moco", queue_size=10, batch_norm_groups=1), dtype=torch.float32)
    keys = [method(make_batch(method, b=b, seed=b)).outputs[1] for b in (8, 4, 7, 2)]
    kept = sorted(map(tuple, method.queue.rows.tolist()))
    assert kept == sorted(map(tuple, torch.cat(keys)[-10:].tolist()))
    assert method.queue.rows.dtype == torch.float32
    with pytest.raises(InputError, match=r"a queue of 10 is smaller than the batch of 12; raise method\.queue_size"):
        method(make_batch(method, b=12))


def test_a_batch_is_never_among_its_own_negatives():
    method = build(configured("moco"))
    batch = make_batch(method)
    before = method.queue.rows.clone()
    loss = method(batch)
    q, k = loss.outputs
    assert loss.value == info_nce(q, k, before, temperature=0.2)
    torch.testing.assert_close(method.queue.rows[:8], k)


def test_shuffled_keys_come_back_in_the_order_of_their_samples():
    method = build(configured("moco", batch_norm_groups=4))
    method.eval()  # where a sample's key does not depend on its group
    pixels = make_batch(method).views[0].pixels
    encoder, projector = method.keys.copies
    expected = F.normalize(projector(encoder(pixels).pooled))
    for _ in range(3):
        torch.testing.assert_close(method.keys(pixels), expected, rtol=1e-12, atol=1e-12)


def test_keys_are_shuffled_anew_in_every_step_and_queries_are_not():
    method = build(configured("moco"))
    batch = make_batch(method)
    first, second = method(batch).outputs, method(batch).outputs
    assert torch.equal(first[0], second[0])
    assert (first[1] - second[1]).norm() > 1e-3  # other neighbours in the groups of batch-norm


def test_groups_are_the_number_of_the_whole_run_and_a_transformer_has_none():
    assert build(configured("moco")).batch_norm_groups == 2
    encoder = build_encoder(EncoderConfig(backbone="test_vit", input_hw=(SIZE, SIZE)))
    method = configured("moco", batch_norm_groups=8).build(encoder)
    assert method.batch_norm_groups is None
    loss = method(make_batch(method, b=3))
    assert loss.value.isfinite()
    assert int(method.keys.draws) == 0


def test_a_batch_that_does_not_divide_into_groups_is_refused():
    method = build(configured("moco", batch_norm_groups=4))
    with pytest.raises(InputError, match="a batch of 6 on this rank does not divide into 4 groups"):
        method(make_batch(method, b=6))


def test_key_encoder_follows_by_equation_2():
    method = build(configured("moco", momentum=0.9))
    train_twice(method, method)
    before = [weight.clone() for weight in method.keys.parameters()]
    method.after_step(0.7)
    students = [*method.encoder.parameters(), *method.projector.parameters()]
    for old, student, key in zip(before, students, method.keys.parameters(), strict=True):
        torch.testing.assert_close(key, 0.9 * old + 0.1 * student)
