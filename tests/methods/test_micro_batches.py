"""Every method: a step is the same step in one, two or four micro-batches, on one rank or two.

Batch-norm is held at its running statistics, since every micro-batch has statistics of its own. What else a loss takes
from the rest of its batch is named by `shared_in_batch`; of such a method the memory alone is the same.
This file is also the script that the two ranks run.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from methods_kit import TINY, build, cases, configured, make_batch, on_two_ranks, train_twice
from safetensors.torch import load_file, save_file
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from robossl.common.ranks import Ranks, rank
from robossl.encoders.encoder import build_encoder
from robossl.methods.base import Method
from robossl.training.micro_batches import accumulate, describe_parts, split

MORE = {  # methods that share nothing once what they share is switched off
    "r3m no negatives": configured("r3m", num_negatives=0),
    "cpc own clip": configured("cpc", negatives="same"),
    "swav plain softmax": configured("swav", sinkhorn_iterations=0, queue_size=16),
    "moco no shuffling": configured("moco", batch_norm_groups=1),
}
CASES = cases() | MORE


def held(config, *, ranks=1):
    """A method whose batch-norm does not look at the batch."""
    method = build(config, ranks=ranks)
    for module in method.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return method


def results_of(config, *, parts, ranks=1):
    """All that comes of two steps, or of one where the loss depends on the size of a micro-batch."""
    method = held(config, ranks=ranks)
    model = method if ranks == 1 else DistributedDataParallel(method, broadcast_buffers=False)
    first = 8 // ranks * rank()
    pick = slice(first, first + 8 // ranks)
    return train_twice(method, model, pick, parts=parts, steps=1 if method.shared_in_batch else 2)


def assert_same(found, expected, *, everything):
    assert found.keys() == expected.keys()
    total = torch.stack([value.norm() for key, value in expected.items() if key.startswith("gradient")]).norm()
    for key, value in expected.items():
        if everything or key.startswith("buffer"):
            scale = max(value.norm(), 1 if key.startswith("buffer") else 1e-3 * total)
            assert (found[key] - value).norm() <= 1e-9 * scale, key


def worker(out, names):
    ranks = Ranks.join("cpu")
    for number, (name, config) in enumerate(CASES.items()):
        if name not in names:
            continue
        found = results_of(config, parts=2, ranks=ranks.world_size)
        save_file(
            {key: value.contiguous().clone() for key, value in found.items()}, out / f"{number}.{rank()}.safetensors"
        )
    ranks.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory, request):
    """What two ranks made of every case that was asked for, each in two micro-batches."""
    out = tmp_path_factory.mktemp("two")
    on_two_ranks(__file__, out, request)
    return out


@pytest.mark.parametrize("case", CASES)
def test_memory_stays_as_it_was_until_the_step_ends(case):
    """Each of the other tests here can say that a step differs, this one which buffer moved too early."""
    method = held(CASES[case])
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    with method.one_step():
        method(make_batch(method))
        moved = [name for name, buffer in method.named_buffers() if not torch.equal(buffer, before[name])]
        assert not moved, f"forward writes to {moved}; pass the rows to Method.remember and write them in update_memory"


def test_what_is_remembered_must_be_written():
    class Forgetful(Method):
        """Does not say what its memory is."""

    with pytest.raises(NotImplementedError):
        Forgetful().remember({"rows": torch.zeros(2, 3)})


def test_a_memory_gets_no_rows_in_half_precision():
    class Keeping(Method):
        """Keeps the types of the rows that it gets."""

        def update_memory(self, rows):
            self.dtypes = [value.dtype for value in rows.values()]

    rows = {str(dtype): torch.zeros(2, dtype=dtype) for dtype in (torch.bfloat16, torch.float16, torch.float64)}
    method = Keeping()
    for step in (contextlib.nullcontext, method.one_step):
        with step():
            method.remember({**rows, "index": torch.arange(2)})
        assert method.dtypes == [torch.float32, torch.float32, torch.float64, torch.int64]


@pytest.mark.parametrize("case", CASES)
def test_one_and_four_micro_batches_are_one_step(case):
    shares = bool(held(CASES[case]).shared_in_batch)
    found, expected = (results_of(CASES[case], parts=parts) for parts in (4, 1))
    assert_same(found, expected, everything=not shares)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_of_two_micro_batches_are_one_process(two, case):
    first, second = (load_file(two / f"{list(CASES).index(case)}.{number}.safetensors") for number in range(2))
    expected = results_of(CASES[case], parts=1)
    for key, value in first.items():
        assert key.startswith("loss") or torch.equal(value, second[key]), key
    mean = {key: (value + second[key]) / 2 for key, value in first.items()}
    assert_same(mean, expected, everything=not held(CASES[case]).shared_in_batch)


@pytest.mark.parametrize("case", [case for case in CASES if held(CASES[case]).shared_in_batch])
def test_what_is_shared_is_shared_within_a_micro_batch(case):
    """The loss is then the mean over micro-batches of what each gives alone."""
    method = held(CASES[case])
    parts = split(make_batch(method), 4)
    alone = [copy.deepcopy(method)(part) for part in parts]
    weights = [1.0 if loss.weight is None else loss.weight.item() for loss in alone]
    expected = sum(w * loss.value.item() for w, loss in zip(weights, alone, strict=True)) / sum(weights)
    assert accumulate(method, method, parts, contextlib.nullcontext).value.item() == pytest.approx(expected, rel=1e-9)


def test_swav_s_micro_batches_share_out_over_the_queue_as_it_was():
    method = held(configured("swav", queue_size=8))
    method(make_batch(method, seed=1))
    assert int(method.num_queued) == 8  # full
    parts = split(make_batch(method), 4)
    expected = sum(copy.deepcopy(method)(part).value.item() for part in parts) / 4
    assert accumulate(method, method, parts, contextlib.nullcontext).value.item() == pytest.approx(expected, rel=1e-9)


def test_a_sample_twice_in_a_step_is_averaged_once():
    words = {"predictor": "moving_average", "bank_size": 20}
    banks = []
    for parts in (1, 4):
        method = held(configured("simsiam", **words))
        batch = replace(make_batch(method), index=torch.tensor([3, 1, 2, 0, 3, 1, 2, 0]))
        accumulate(method, method, split(batch, parts), contextlib.nullcontext)
        banks.append(method.bank.average)
    torch.testing.assert_close(*banks)


def test_a_step_that_fails_leaves_the_memory_as_it_was_and_the_next_one_moves_it():
    method = build(configured("moco", queue_size=16), dtype=torch.float32)
    before = method.queue.rows.clone()
    with pytest.raises(KeyboardInterrupt), method.one_step():
        method(make_batch(method))
        raise KeyboardInterrupt
    assert torch.equal(method.queue.rows, before)
    keys = method(make_batch(method)).outputs[1]
    assert torch.equal(method.queue.rows[:8], keys)


def test_the_rows_of_micro_batches_are_queued_in_the_order_of_the_batch():
    method = held(configured("moco", queue_size=16, batch_norm_groups=1))
    batch = make_batch(method)
    expected = method.keys(batch.views[1].pixels)
    accumulate(method, method, split(batch, 4), contextlib.nullcontext)
    torch.testing.assert_close(method.queue.rows[:8], expected)
    assert int(method.queue.start) == 8


def test_a_run_says_what_its_micro_batches_have_for_themselves():
    def said(name, parts=4):
        method = configured(name).build(build_encoder(TINY))
        return describe_parts(method, batch_size=64, parts=parts)

    assert said("simclr", parts=1) == ""
    assert said("simclr") == " in 4 micro-batches of 16, each with negatives and batch-norm statistics of its own"
    assert said("moco") == " in 4 micro-batches of 16, each with batch-norm statistics of its own"


if __name__ == "__main__":
    worker(Path(sys.argv[1]), sys.argv[2:])
