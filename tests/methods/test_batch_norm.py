"""Split batch-norm: each group has its own statistics; over ranks see test_ranks.py and MoCo in test_methods.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from robossl.errors import InputError
from robossl.methods.parts.batch_norm import SplitBatchNorm, convert_split_batchnorm

SHAPES = {"features": (12, 6), "maps": (12, 6, 5, 3)}


def norms(shape, *, groups, affine=True):
    """A plain batch-norm and a split one of equal parameters and statistics."""
    plain = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(6, momentum=0.3, affine=affine).double()
    torch.manual_seed(0)
    for value in [*plain.parameters(), plain.running_mean]:
        nn.init.normal_(value)
    split = nn.Sequential(nn.BatchNorm2d(6, momentum=0.3, affine=affine)).double()
    split[0].load_state_dict(plain.state_dict())
    return plain, convert_split_batchnorm(split, groups=groups)[0]


def draw(shape):
    return 2 + 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_group_is_normalised_as_by_a_batch_norm_of_its_own(shape, groups, affine):
    plain, split = norms(shape, groups=groups, affine=affine)
    x = draw(shape).requires_grad_()
    out = split(x)
    out.sin().sum().backward()
    actual, x.grad = x.grad, None
    own = [copy.deepcopy(plain) for _ in range(groups)]
    expected = torch.cat([norm(part) for norm, part in zip(own, x.chunk(groups), strict=True)])
    torch.testing.assert_close(out, expected)
    expected.sin().sum().backward()
    torch.testing.assert_close(actual, x.grad)
    for name, weight in split.named_parameters():
        torch.testing.assert_close(weight.grad, sum(norm.get_parameter(name).grad for norm in own))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(split.get_buffer(name), sum(norm.get_buffer(name) for norm in own) / groups)
    assert split.num_batches_tracked == 1


def test_a_sample_depends_on_its_group_alone():
    _, split = norms(SHAPES["features"], groups=3)
    x = draw(SHAPES["features"])
    before = split(x)
    x[4:8] += torch.linspace(0, 1, 4).unsqueeze(1)
    after = split(x)
    assert torch.equal(before[:4], after[:4]) and torch.equal(before[8:], after[8:])
    assert not torch.equal(before[4:8], after[4:8])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_evaluation_is_that_of_a_plain_batch_norm_and_takes_any_batch(shape):
    plain, split = norms(shape, groups=4)
    x = draw(shape)
    split.train(False)
    plain.train(False)
    assert torch.equal(split(x), plain(x))
    assert torch.equal(split(x[:3]), plain(x[:3]))
    assert split.num_batches_tracked == 0


def test_a_batch_that_does_not_divide_is_refused():
    _, split = norms(SHAPES["maps"], groups=5)
    with pytest.raises(InputError, match="a batch of 12 on this rank does not divide into 5 groups of batch-norm"):
        split(draw(SHAPES["maps"]))


def test_converting_keeps_parameters_and_mode_and_refuses_other_kinds():
    layers = nn.Sequential(nn.Linear(3, 6), nn.Sequential(nn.BatchNorm1d(6).eval()))
    weight = layers[1][0].weight
    convert_split_batchnorm(layers, groups=2)
    converted = layers[1][0]
    assert isinstance(converted, SplitBatchNorm)
    assert converted.weight is weight
    assert (converted.groups, converted.training) == (2, False)
    with pytest.raises(InputError, match="cannot give BatchNorm3d statistics of 2 groups"):
        convert_split_batchnorm(nn.Sequential(nn.BatchNorm3d(4)), groups=2)
