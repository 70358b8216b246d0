"""Two gloo processes give the values and gradients of one on the joined batch (fp64); alone, all is a no-op.

This file is also the script that those two processes run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import kits_environment
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from robossl.common.ranks import Ranks, all_reduce_mean, all_reduce_sum, any_rank, barrier, broadcast, gather
from robossl.errors import InputError
from robossl.methods.parts.batch_norm import SyncBatchNorm, convert_sync_batchnorm

SHAPES = {"features": (8, 6), "maps": (8, 6, 5, 3)}


def joined_input(shape):
    draw = torch.Generator().manual_seed(0)
    return 2 + 3 * torch.randn(shape, generator=draw, dtype=torch.float64)


def net(shape, *, affine=True):
    """Two batch-norms with work around them, the second after a nonlinearity."""
    torch.manual_seed(1)
    norm = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    layers = nn.Sequential(norm(6, affine=affine), nn.GELU(), norm(6, momentum=0.3, affine=affine))
    for weight in layers.parameters():
        nn.init.normal_(weight)
    return layers.double()


def batch_norm_results(layers, x, pick=slice(None)):
    x = x.clone().requires_grad_()
    for _ in range(2):
        out = layers(x[pick])
    loss = (out.flatten(1).sin().sum(1) * torch.linspace(1, 2, 8, dtype=x.dtype)[pick]).sum()
    loss.backward()
    results = {"out": out.detach(), "x": x.grad[pick]}
    results |= {name: weight.grad for name, weight in layers.named_parameters()}
    return results | {name: buffer.double() for name, buffer in layers.named_buffers()}


def gather_results(x, pick=slice(None)):
    """A loss of products between this rank's samples and everyone's."""
    x = x.clone().requires_grad_()
    everyone = gather(x[pick])
    loss = torch.tanh(x[pick] @ everyone.T / 50).square().mean() + all_reduce_mean(x[pick].cos().mean(0)).pow(3).sum()
    loss.backward()
    return {"everyone": everyone.detach(), "loss": loss.detach(), "x": x.grad[pick]}


def worker(out):
    ranks = Ranks.join("cpu")
    pick = slice(4 * ranks.rank, 4 * ranks.rank + 4)
    results = {}
    for name, shape in SHAPES.items():
        for affine in (True, False):
            layers = convert_sync_batchnorm(net(shape, affine=affine))
            part = batch_norm_results(layers, joined_input(shape), pick)
            results |= {f"{name}.{affine}.{key}": value for key, value in part.items()}
    half = convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(6)))(joined_input((8, 6))[pick].bfloat16())
    results["half"] = half.detach()
    results |= {f"gather.{key}": value for key, value in gather_results(joined_input((8, 6)), pick).items()}
    results["plain"] = torch.tensor(
        [
            *broadcast([float(ranks.rank + 7), 2.0**53 - 1]),
            any_rank(ranks.rank == 1),
            any_rank(False),
            all_reduce_sum(torch.tensor(ranks.rank + 1)),
            ranks.world_size,
            ranks.is_main,
        ],
        dtype=torch.float64,
    )
    barrier()
    save_file({key: value.contiguous().clone() for key, value in results.items()}, out / f"{ranks.rank}.safetensors")
    ranks.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, __file__, str(out)], check=True, env=kits_environment(), timeout=900)
    return [load_file(out / f"{rank}.safetensors") for rank in range(2)]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_batch_norm_over_ranks_is_that_of_the_joined_batch(two, name, affine):
    expected = batch_norm_results(net(SHAPES[name], affine=affine), joined_input(SHAPES[name]))
    parts = [{key.removeprefix(f"{name}.{affine}."): value for key, value in rank.items()} for rank in two]
    for key in ("out", "x"):
        close(torch.cat([part[key] for part in parts]), expected[key])
    for key in expected.keys() - {"out", "x"}:
        if "running" in key or "tracked" in key:
            close(parts[0][key], expected[key])
            assert torch.equal(parts[0][key], parts[1][key])
        else:
            close(parts[0][key] + parts[1][key], expected[key])


def test_gather_and_mean_have_the_gradient_of_the_joined_batch(two):
    x = joined_input((8, 6))
    expected = gather_results(x)
    for rank in two:
        close(rank["gather.everyone"], x)
    close((two[0]["gather.loss"] + two[1]["gather.loss"]) / 2, expected["loss"])
    close(torch.cat([rank["gather.x"] for rank in two]) / 2, expected["x"])  # halved, as DDP averages


def test_batch_norm_over_ranks_keeps_bf16_and_computes_in_fp32(two):
    x = joined_input((8, 6)).bfloat16()
    expected = F.batch_norm(x.float(), None, None, training=True)
    half = torch.cat([rank["half"] for rank in two])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.01, rtol=0.01)


def test_plain_values_are_the_same_on_every_rank(two):
    assert two[0]["plain"].tolist() == [7.0, 2.0**53 - 1, 1.0, 0.0, 3.0, 2.0, 1.0]
    assert two[1]["plain"].tolist() == [7.0, 2.0**53 - 1, 1.0, 0.0, 3.0, 2.0, 0.0]


def test_one_process_is_alone():
    ranks = Ranks.join("cpu")
    assert (ranks.rank, ranks.world_size, ranks.is_main, ranks.device.type) == (0, 1, True, "cpu")
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert all_reduce_mean(x) is x
    assert broadcast([3]) == [3]
    assert any_rank(True)
    assert not any_rank(False)
    barrier()
    ranks.close()


def test_converting_shares_parameters_and_changes_nothing_in_one_process():
    x = joined_input(SHAPES["maps"])
    plain = net(SHAPES["maps"])
    synced = convert_sync_batchnorm(net(SHAPES["maps"]))
    assert all(isinstance(synced[i], SyncBatchNorm) for i in (0, 2))
    assert synced.state_dict().keys() == plain.state_dict().keys()
    for training in (True, False):
        assert torch.equal(plain.train(training)(x), synced.train(training)(x))


def test_a_batch_norm_that_cannot_be_synced_is_refused():
    with pytest.raises(InputError, match="cannot give BatchNorm3d statistics over all ranks"):
        convert_sync_batchnorm(nn.Sequential(nn.BatchNorm3d(4)))


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
