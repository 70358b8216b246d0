"""Chunks: every sample once, samples that go together side by side, and threads that leave torch's own alone."""

import threading

import numpy as np
import pytest
import torch

from robossl.augment.colour import HUE, hue_place
from robossl.augment.thread_chunks import chunks, for_each

CPU = torch.device("cpu")


def orders(n):
    generator = np.random.default_rng(0)
    order = np.argsort(generator.random((n, 4)), axis=1)
    order[generator.random(n) < 0.2] = -1
    return order


@pytest.mark.parametrize(("n", "size"), [(1, 8), (5, 224), (64, 96), (256, 224)])
def test_every_sample_is_in_one_chunk_and_places_do_not_alternate(n, size):
    order = orders(n)
    pieces = chunks(order, size=size, device=CPU)
    everyone = np.concatenate(pieces)
    assert sorted(everyone.tolist()) == list(range(n))
    assert (np.diff(hue_place(order)[everyone]) >= 0).all()
    whole = chunks(order, size=size, device=torch.device("meta"))
    assert len(whole) == 1 and sorted(whole[0].tolist()) == list(range(n))


def test_hue_places():
    assert hue_place(np.array([[HUE, 0, 1, 2], [1, 2, 0, HUE], [0, 1, -1, -1], [-1] * 4])).tolist() == [0, 3, 4, 5]


def test_work_runs_in_threads_that_leave_torchs_threads_alone():
    before = 2
    torch.set_num_threads(before)
    seen = []
    for_each(lambda piece: seen.append((threading.get_ident(), torch.get_num_threads())), [np.zeros(1, np.int64)] * 9)
    assert len(seen) == 9 and threading.get_ident() not in {thread for thread, _ in seen}
    assert {num_threads for _, num_threads in seen} == {1}
    assert torch.get_num_threads() == before
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    torch.set_num_threads(1)  # as conftest.py has it
    assert later == [before]


def test_an_error_in_a_thread_is_raised():
    def fail(piece):
        raise ValueError(f"piece of {len(piece)}")

    with pytest.raises(ValueError, match="piece of 1"):
        for_each(fail, [np.zeros(1, np.int64)] * 3)
