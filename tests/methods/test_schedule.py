from itertools import pairwise

import pytest

from robossl.methods.parts.schedule import warmup_cosine


def test_warmup_rises_to_one_and_cosine_falls_to_its_end() -> None:
    factors = [warmup_cosine(step, steps=100, warmup_steps=10, end=0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == 1.0
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(factors[10:]))


def test_run_shorter_than_its_warmup_still_has_a_rate() -> None:
    assert warmup_cosine(3, steps=4, warmup_steps=10) == pytest.approx(0.4)
