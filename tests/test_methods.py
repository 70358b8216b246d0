"""Every method: its loss is the paper's, its state is whole, and two ranks train as one process does.

Parametrised over METHODS: a new method needs no test here, only `reference/<name>.py` with `loss(method, batch)`.
This file is also the script that the two ranks run.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from robossl.batch_norm import convert_sync_batchnorm
from robossl.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.health import std_normalised
from robossl.methods import METHODS, resolve_method
from robossl.methods.simclr import SimCLRConfig
from robossl.methods.simsiam import SimSiamConfig
from robossl.ranks import Ranks
from robossl.views import Batch, View

TINY = EncoderConfig(backbone="test_resnet", zero_init_last=False)  # else half the graph is dead at the start
SMALL = {"projector_hidden_dim": 64, "output_dim": 64, "predictor_hidden_dim": 16}
BANK = {"predictor": "moving_average", "bank_size": 20}
VARIANTS = {
    "simclr official head": SimCLRConfig(head="official", projector_layers=3),
    "simsiam moving average": SimSiamConfig(**SMALL, **BANK),
    "simsiam asymmetric cross-entropy": SimSiamConfig(**SMALL, symmetric=False, similarity="cross_entropy"),
    "simsiam no stop-gradient": SimSiamConfig(**SMALL, stop_gradient=False),
    "simsiam official head": SimSiamConfig(**SMALL, head="official"),
}
CASES = {name: resolve_method(name)() for name in METHODS} | VARIANTS


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny tensors: threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(config, *, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return config.build(build_encoder(TINY)).to(dtype)


def make_batch(method, *, b=8, size=32, seed=0):
    """Normalised noise with a different mean for each sample and view."""
    draw = torch.Generator().manual_seed(seed)
    dtype = next(method.parameters()).dtype
    views = []
    for _ in method.views():
        pixels = torch.randn(b, 3, size, size, generator=draw, dtype=torch.float64)
        pixels = (pixels + torch.randn(b, 3, 1, 1, generator=draw, dtype=torch.float64)).to(dtype)
        views.append(View(pixels, None, torch.full((b, 2), size), {}, torch.zeros(b)))
    return Batch(tuple(views), index=(torch.arange(b) * 7 + seed) % 20)


def reference(name):
    path = Path(__file__).parent / "reference" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"no oracle: write {path.name} in tests/reference")
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train_twice(method, model, pick=slice(None)):
    """Two batches with a step between, so that what one leaves behind shows in the other; all that came of it."""
    results = {}
    for i in range(2):
        model.zero_grad()
        loss = model(make_batch(method, seed=i)[pick])
        loss.value.backward()
        with torch.no_grad():
            for weight in method.parameters():
                if weight.grad is not None:
                    weight -= 0.01 * weight.grad / weight.grad.norm().clamp_min(1e-8)
        method.after_step((i + 1) / 2)
        results[f"loss.{i}"] = loss.value.detach()
    gradients = {name: weight.grad for name, weight in method.named_parameters() if weight.grad is not None}
    results |= {f"gradient.{name}": gradient for name, gradient in gradients.items()}
    return results | {f"buffer.{name}": buffer.double() for name, buffer in method.named_buffers()}


def worker(out):
    ranks = Ranks.join("cpu")
    pick = slice(4 * ranks.rank, 4 * ranks.rank + 4)
    for i, config in enumerate(CASES.values()):
        method = convert_sync_batchnorm(build(config))
        results = train_twice(method, DistributedDataParallel(method, broadcast_buffers=False), pick)
        results = {key: value.contiguous().clone() for key, value in results.items()}
        save_file(results, out / f"{i}.{ranks.rank}.safetensors")
    ranks.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, __file__, str(out)], check=True, env=environment, timeout=240)
    return out


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_as_one_process_on_the_joined_batch(two, case):
    number = list(CASES).index(case)
    parts = [load_file(two / f"{number}.{rank}.safetensors") for rank in range(2)]
    method = build(CASES[case])
    whole = train_twice(method, method)
    assert parts[0].keys() == whole.keys()
    total = torch.stack([value.norm() for key, value in whole.items() if key.startswith("gradient")]).norm()
    for key, expected in whole.items():
        if key.startswith("loss"):
            expected_loss = (parts[0][key] + parts[1][key]) / 2
            assert abs(expected_loss - expected) <= 1e-10 * abs(expected), key
        else:
            assert torch.equal(parts[0][key], parts[1][key]), key
            scale = max(expected.norm(), 1 if key.startswith("buffer") else 1e-3 * total)
            assert (parts[0][key] - expected).norm() <= 1e-10 * scale, key


@pytest.mark.parametrize("name", METHODS)
def test_loss_is_the_paper_s(name):
    oracle = reference(name)
    method = build(resolve_method(name)())
    batch = make_batch(method)
    assert method(batch).value.item() == pytest.approx(oracle.loss(method, batch), abs=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_gradient_reaches_all_that_trains_and_outputs_are_detached(case):
    method = build(CASES[case], dtype=torch.float32)
    loss = method(make_batch(method))
    assert loss.value.shape == ()
    assert loss.value.isfinite()
    loss.value.backward()
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.isfinite().all(), name
    assert all(weight.grad.any() for weight in method.encoder.parameters())
    assert not any(out.requires_grad for out in loss.outputs)
    assert not any(value.requires_grad for value in loss.metrics.values())
    names = [name for name, _ in method.named_parameters()]
    assert all(any(name.startswith(prefix) for name in names) for prefix in method.constant_lr)


@pytest.mark.parametrize("case", CASES)
def test_state_dict_holds_all_that_the_next_step_depends_on(case):
    method, resumed = build(CASES[case]), build(CASES[case], seed=1)
    train_twice(method, method)
    resumed.load_state_dict(method.state_dict())
    expected, actual = train_twice(method, method), train_twice(resumed, resumed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[key], actual[key]) for key in expected)


@pytest.mark.parametrize("case", CASES)
def test_bf16_autocast_is_close_to_fp32_and_the_loss_is_fp32(case):
    losses = []
    for enabled in (False, True):
        method = build(CASES[case], dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = method(make_batch(method))
        loss.value.backward()
        assert loss.value.dtype == torch.float32
        assert all(weight.grad.isfinite().all() for weight in method.parameters() if weight.grad is not None)
        losses.append(loss.value.item())
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_unknown_method_names_the_nearest():
    with pytest.raises(InputError, match="unknown method 'simsaim'; did you mean 'simsiam'"):
        resolve_method("simsaim")


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


def gradient(method, batch):
    method(batch).value.backward()
    return torch.cat([weight.grad.flatten() for weight in method.parameters() if weight.grad is not None])


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


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
