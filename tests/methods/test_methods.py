"""Every method: its loss is the paper's, its state is whole, and two ranks train as one process does.

Parametrised over METHODS: a new method needs no test here, only `reference/<name>.py` (see methods_kit.py).
This file is also the script that the two ranks run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from methods_kit import build, cases, collapses, configured, make_batch, on_two_ranks, reference, train_twice
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from robossl.common.ranks import Ranks
from robossl.errors import InputError
from robossl.measure.collapse import CollapseMonitor
from robossl.methods import METHODS, resolve_method

CASES = cases()


def worker(out, names):
    ranks = Ranks.join("cpu")
    pick = slice(4 * ranks.rank, 4 * ranks.rank + 4)
    for i, config in enumerate(CASES.values()):
        if list(CASES)[i] not in names:
            continue
        method = build(config, ranks=2)
        results = train_twice(method, DistributedDataParallel(method, broadcast_buffers=False), pick)
        results = {key: value.contiguous().clone() for key, value in results.items()}
        save_file(results, out / f"{i}.{ranks.rank}.safetensors")
    ranks.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory, request):
    """What two ranks made of every case that was asked for."""
    out = tmp_path_factory.mktemp("two")
    on_two_ranks(__file__, out, request)
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
    if oracle is None:
        pytest.skip(f"no oracle: write {name}.py in tests/reference")
    method = build(configured(name))
    batch = make_batch(method)
    expected = oracle.loss(method, batch)  # first: a batch changes queues and centres
    assert method(batch).value.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


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
        else:
            assert weight.grad is None, name
    trained = [weight for weight in method.parameters() if weight.requires_grad and weight.ndim > 1]
    assert sum(bool(weight.grad.any()) for weight in trained) == len(trained)
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
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = method(make_batch(method))
        loss.value.backward()
        method.after_step(1.0)
        assert loss.value.dtype == torch.float32
        assert all(weight.grad.isfinite().all() for weight in method.parameters() if weight.grad is not None)
        assert all(value.isfinite().all() for value in method.state_dict().values())
        losses.append(loss.value.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=0.05)  # 3.6 % on processors that multiply in bf16


COLLAPSES = collapses()


@pytest.mark.parametrize(("name", "what", "words"), COLLAPSES, ids=[f"{name} {what}" for name, what, _ in COLLAPSES])
def test_a_collapse_is_said_and_a_healthy_run_is_not(name, what, words):
    """The same small run with the method's safeguard removed, and with it in place."""
    recipe = {"lr": 0.5, "steps": 60, "b": 16} | getattr(reference(name), "COLLAPSE_RECIPE", {})
    assert warnings_of(configured(name, **words), **recipe), f"{name}: {what} was not reported"
    assert not warnings_of(configured(name), **recipe), f"{name}: a healthy run was reported"


def warnings_of(config, *, lr, steps, b):
    method = build(config, dtype=torch.float32)
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, momentum=0.9)
    health, said = CollapseMonitor(), []
    for step in range(steps):
        method.before_step(step, steps)
        out = method(make_batch(method, b=b, seed=step))
        optimizer.zero_grad()
        out.value.backward()
        method.after_backward()
        optimizer.step()
        method.after_step((step + 1) / steps)
        if step % 5 == 4:
            said.append(health.check(out.outputs).warning)
    return [warning for warning in said if warning]


def test_unknown_method_names_the_nearest():
    with pytest.raises(InputError, match="unknown method 'simsaim'; did you mean 'simsiam'"):
        resolve_method("simsaim")


if __name__ == "__main__":
    worker(Path(sys.argv[1]), sys.argv[2:])
