"""Teachers: copies that follow, queues and centres; their equations, and that a saved one goes on exactly."""

from __future__ import annotations

import pytest
import torch
from timm.layers.drop import DropPath
from torch import nn
from torch.nn import functional as F

from robossl.errors import InputError
from robossl.methods.parts.teacher import Center, Ema, Queue


class Student(nn.Module):
    """A linear layer, a batch-norm and what drops at random."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.path = DropPath(0.5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.path(self.norm(self.linear(x))))


def student(seed=0):
    torch.manual_seed(seed)
    return Student().double()


def rows(b, d=3, *, seed=0):
    return torch.randn(b, d, generator=torch.Generator().manual_seed(seed))


def test_copies_start_equal_share_nothing_and_take_no_gradient():
    model = student()
    ema = Ema(model)
    for weight, copied in zip(model.parameters(), ema.parameters(), strict=True):
        assert torch.equal(weight, copied)
        assert weight.data_ptr() != copied.data_ptr()
        assert weight.requires_grad and not copied.requires_grad
    assert len(list(ema.parameters())) == len(list(model.parameters()))  # the student itself is not kept


def test_parameters_follow_by_the_formula_and_buffers_do_not():
    models = [student(seed=1), nn.Linear(2, 2).double()]
    ema = Ema(*models)
    expected = [weight.clone() for weight in ema.parameters()]
    for momentum in (0.9, 0.5, 1.0):
        for model in models:
            for weight in model.parameters():
                nn.init.normal_(weight)
        models[0].norm.running_mean.fill_(7.0)
        models[0].norm.num_batches_tracked.fill_(7)
        students = [weight for model in models for weight in model.parameters()]
        expected = [momentum * t + (1 - momentum) * s for t, s in zip(expected, students, strict=True)]
        ema.update(*models, momentum=momentum)
        for copied, value in zip(ema.parameters(), expected, strict=True):
            torch.testing.assert_close(copied, value, rtol=1e-14, atol=1e-15)
    assert not ema.copies[0].norm.running_mean.any()
    assert ema.copies[0].norm.num_batches_tracked == 0


def test_parameters_that_do_not_move_are_copied_to_the_last_bit():
    model = student().float()
    ema = Ema(model)
    for momentum in (0.996, 0.3, 0.0):
        ema.update(model, momentum=momentum)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), ema.parameters(), strict=True))


def test_a_copy_drops_nothing_and_has_batch_norm_statistics_of_its_own_while_training():
    model = student()
    ema = Ema(model)
    for mode in (True, False, True):
        ema.train(mode)
        copied = ema.copies[0]
        assert copied.norm.training is mode
    x = rows(16, 5).double()
    out = copied(x)
    torch.testing.assert_close(out, copied(x))
    torch.testing.assert_close(out, F.batch_norm(copied.linear(x), None, None, training=True))
    assert copied.norm.num_batches_tracked == 2
    assert model.norm.num_batches_tracked == 0


def test_a_copy_stays_without_drops_when_it_is_told_to_train_past_its_ema():
    model = student()
    copied = Ema(model).copies[0]
    copied.eval()
    copied.train()
    x = rows(16, 5).double()
    assert torch.equal(copied(x), copied(x))
    assert not torch.equal(model(x), model(x))


def test_the_queue_starts_with_unit_noise_and_rings():
    queue = Queue(7, 3)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(7))
    start, pushed = queue.rows.clone(), rows(30)
    queue.push(pushed[:3])
    assert torch.equal(queue.rows, torch.cat([pushed[:3], start[3:]]))
    last = 3
    for size in (5, 1, 7, 4, 2):  # wraps within a batch, fills whole
        queue.push(pushed[last : last + size])
        last += size
        ring = torch.roll(queue.rows, -int(queue.start), 0)
        assert torch.equal(ring, pushed[last - 7 : last])


def test_the_queue_keeps_float32_and_no_graph():
    queue = Queue(4, 3)
    queue.push(rows(2).bfloat16().requires_grad_())
    assert queue.rows.dtype == torch.float32
    assert not queue.rows.requires_grad


def test_a_batch_larger_than_the_queue_is_refused_and_one_as_large_is_not():
    queue = Queue(4, 3)
    queue.push(rows(4))
    with pytest.raises(InputError, match=r"a queue of 4 is smaller than the batch of 5; raise method\.queue_size"):
        queue.push(rows(5))
    assert torch.equal(queue.rows, rows(4))


def test_the_centre_follows_the_mean_by_equation_4():
    center = Center(3, momentum=0.9)
    expected = torch.zeros(3)
    for seed in range(3):
        logits = rows(6, seed=seed)
        center.update(logits.requires_grad_())
        expected = 0.9 * expected + 0.1 * logits.detach().mean(0)
    torch.testing.assert_close(center.mean, expected)
    assert not center.mean.requires_grad
    center.update(rows(6).bfloat16())
    assert center.mean.dtype == torch.float32


@pytest.mark.parametrize("make", [lambda: Queue(7, 3), lambda: Center(3, momentum=0.9)], ids=["queue", "centre"])
def test_a_saved_one_goes_on_exactly(make):
    straight, resumed = make(), make()
    step = straight.push if isinstance(straight, Queue) else straight.update
    again = resumed.push if isinstance(resumed, Queue) else resumed.update
    step(rows(5))
    resumed.load_state_dict(straight.state_dict())
    step(rows(4, seed=1))
    again(rows(4, seed=1))
    saved, other = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(saved[name], other[name]) for name in saved)
