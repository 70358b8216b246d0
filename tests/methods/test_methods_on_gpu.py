"""Every method as on a GPU, without one: nothing is left on the CPU, and the host never waits for the GPU.

The forward pass runs on a fake GPU (see fake_gpu.py), the backward pass on meta tensors, which autograd can follow
without a driver. A meta tensor has no values, so reading one is an error.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import pytest
import torch
from fake_gpu import GPU, FakeGpu, fake_gpu, moved, on_gpu
from methods_kit import SIZE, TINY, cases, configured, make_batch

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.methods import METHODS
from robossl.methods.base import Loss, Method
from robossl.methods.distill import Distill
from robossl.methods.parts.batch_norm import _NormaliseOverRanks, convert_split_batchnorm
from robossl.methods.parts.teacher import HostCounts
from robossl.training.micro_batches import _weights, accumulate, mean_loss, split
from robossl.views import ViewSpec

CASES = cases()
PATCH = 16  # pixels of a patch of test_vit
PATCHES = {"cpc_rows": {"patch_size": PATCH, "patch_stride": PATCH // 2}}
VIT = EncoderConfig(backbone="test_vit", input_hw=(SIZE, SIZE))
# All ranks draw the same numbers on their CPUs, and copy them to the GPU without waiting.
ALLOWED = ("aten.randperm.generator",)


def build(config, encoder=TINY):
    torch.manual_seed(0)
    method = config.build(build_encoder(encoder))
    if method.batch_norm_groups:
        method = convert_split_batchnorm(method, groups=method.batch_norm_groups)
    for module in method.modules():
        if isinstance(module, HostCounts):  # the first call reads the buffer
            for name in ("draws", "num_queued", "num_steps"):
                if hasattr(module, name):
                    module.count(name)
    return method


def run_forward(method, batch) -> FakeGpu:
    """Run what a step does but the backward pass, whose engine asks for the GPU; return what the fake GPU noted."""
    with fake_gpu() as gpu:
        method, batch = on_gpu(method), on_gpu(batch)
        method.before_step(0, 2)
        move_teachers(method, GPU)
        loss = method(batch)
        method.after_step(0.5)
        held = [loss.value, *loss.metrics.values(), *loss.outputs, *([] if loss.weight is None else [loss.weight])]
        assert {each.device.type for each in held} == {"cuda"}
    return gpu


def move_teachers(method, device):
    """As after the first step, in which frozen teachers follow the device of their pixels."""
    for teacher in method.teachers if isinstance(method, Distill) else ():
        teacher._colours = moved(teacher._colours, device)
        moved(teacher._encode.encoder, device)


def assert_clean(gpu: FakeGpu) -> None:
    assert not [each for each in gpu.cpu_tensors if not each.endswith(ALLOWED)]
    assert not gpu.waits


@pytest.mark.parametrize("case", CASES)
def test_forward_leaves_nothing_on_the_cpu_and_waits_for_nothing(case):
    method = build(CASES[case])
    assert_clean(run_forward(method, make_batch(method)))


@pytest.mark.parametrize("name", METHODS)
def test_forward_of_a_vision_transformer(name):
    """Views of another size than the position embeddings, as local crops are."""
    try:
        method = build(configured(name, **PATCHES.get(name, {})), VIT)
    except InputError as error:
        pytest.skip(str(error))
    batch, largest = make_batch(method), max(spec.size for spec in method.views())
    views = [
        replace(view, pixels=torch.zeros(*view.pixels.shape[:-2], side, side))
        for view, spec in zip(batch.views, method.views(), strict=True)
        for side in [max(PATCH, round(2 * SIZE * spec.size / largest / PATCH) * PATCH)]
    ]
    assert_clean(run_forward(method, replace(batch, views=tuple(views))))


def test_columns_that_are_looked_up_are_not_read():
    method = build(configured("cpc", columns={"action": 3}, discrete_columns={"tool": 2}))
    batch = make_batch(method)
    view = batch.views[0]
    whole = replace(view, columns=view.columns | {"tool": torch.ones(*view.pixels.shape[:2], 1)})
    assert_clean(run_forward(method, replace(batch, views=(whole,))))


def test_weights_of_micro_batches_are_not_read():
    method = build(configured("r3m"))
    batch = make_batch(method)
    with fake_gpu() as gpu:
        method, batch = on_gpu(method), on_gpu(batch)
        losses = [method(part) for part in split(batch, 2)]
        mean_loss(losses, _weights(losses))
    assert_clean(gpu)


# A teacher of this case is a ViT at another size than its own. Its positions are resized without autocast, which torch
# refuses to switch off for meta tensors. The resize needs no backward pass, for a teacher is frozen.
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"distill two teachers"}))
def test_backward_on_meta_tensors(case):
    method, meta = build(CASES[case]), torch.device("meta")
    method.before_step(0, 2)
    batch, method = (moved(each, meta) for each in (make_batch(method), method))
    move_teachers(method, meta)
    loss = accumulate(method, method, [batch], contextlib.nullcontext)
    assert loss.value.is_meta
    gradients = [weight.grad for weight in method.parameters() if weight.grad is not None]
    assert gradients and all(each.is_meta for each in gradients)


def test_backward_of_batch_norm_over_ranks_on_meta_tensors():
    x, weight, bias = (torch.zeros(size, device="meta", requires_grad=True) for size in ((4, 3, 2, 2), (3,), (3,)))
    mean = torch.zeros(3, device="meta")
    _NormaliseOverRanks.apply(x, weight, bias, mean, mean, 1e-5).sum().backward()
    assert x.grad.is_meta and weight.grad.is_meta and bias.grad.is_meta


@dataclass(frozen=True, slots=True)
class ToyConfig:
    """A method that is right on a CPU only."""

    fault: str

    def build(self, encoder):
        return Toy(encoder, self)


class Toy(Method):
    def __init__(self, encoder, config):
        super().__init__()
        self.encoder, self.config = encoder, config

    def views(self):
        return (ViewSpec(), ViewSpec())

    def forward(self, batch):
        z0, z1 = (self.encoder(view.pixels).pooled for view in batch.views)
        match self.config.fault:
            case "mixed":
                z1 = z1 + torch.zeros(z1.shape[1])
            case "moved":
                z1 = z1 + torch.zeros(z1.shape[1]).to(z1.device)
            case "permuted":
                z1 = z1[torch.randperm(len(z1))]
            case "read":
                z1 = z1 * z1.mean().item()
            case "selected":
                z1 = z1[batch.index > 2].mean(0)
            case "listed":
                z1 = z1[:, [1, 0]].mean()
        loss = (z0 - z1).square().mean()
        return Loss(loss, {}, (z0.detach(),))


def test_a_toy_without_a_fault_is_clean():
    method = build(ToyConfig("none"))
    assert_clean(run_forward(method, make_batch(method)))


@pytest.mark.parametrize("fault", ["moved", "permuted", "read", "listed"])
def test_a_faulty_toy_is_noticed(fault):
    method = build(ToyConfig(fault))
    gpu = run_forward(method, make_batch(method))
    with pytest.raises(AssertionError):
        assert_clean(gpu)
    assert all("test_methods_on_gpu.py" in each for each in gpu.cpu_tensors + gpu.waits)


@pytest.mark.parametrize(("fault", "message"), [("mixed", "device"), ("selected", "nonzero")])
def test_a_faulty_toy_fails(fault, message):
    method = build(ToyConfig(fault))
    with pytest.raises(Exception, match=message):
        run_forward(method, make_batch(method))
