"""Kept scores: the same question is not computed twice, any other is."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.errors import InputError
from robossl.evaluation.kept import keeping
from robossl.evaluation.linear import linear
from robossl.evaluation.protocol import Predictions

calls = 0


def counted(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    groups: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    seed: int,
) -> Predictions:
    """The linear probe, and how often it ran."""
    global calls
    calls += 1
    return linear(train, labels, groups, test, seed=seed)


@pytest.fixture
def asked() -> tuple[ndarray, ...]:
    """Training features, classes, groups, test features."""
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 12)
    return draw.normal(size=(36, 4)) + labels[:, None], labels, np.arange(36) // 3, draw.normal(size=(9, 4))


def test_the_same_question_is_computed_once(asked: tuple[ndarray, ...], tmp_path: Path) -> None:
    before = calls
    first = keeping(counted, tmp_path)(*asked, seed=0)
    again = keeping(counted, tmp_path)(*asked, seed=0)
    assert calls == before + 1
    np.testing.assert_array_equal(first.scores, again.scores)
    assert first.scores.dtype == again.scores.dtype and dict(first.details) == dict(again.details)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("place", [0, 1, 2, 3, "seed"])
def test_another_question_is_computed(place: int | str, asked: tuple[ndarray, ...], tmp_path: Path) -> None:
    keeping(counted, tmp_path)(*asked, seed=0)
    before = calls
    other = list(asked)
    if isinstance(place, int):
        other[place] = np.roll(other[place], 1, axis=0)
    keeping(counted, tmp_path)(*other, seed=int(place == "seed"))
    assert calls == before + 1


def test_other_statistics_to_choose_by_are_another_question(
    asked: tuple[ndarray, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping(counted, tmp_path)(*asked, seed=0)
    monkeypatch.setattr(sys.modules[keeping.__module__], "CODE", (json,))
    before = calls
    keeping(counted, tmp_path)(*asked, seed=0)
    assert calls == before + 1


def test_a_damaged_file_is_computed_again(asked: tuple[ndarray, ...], tmp_path: Path) -> None:
    first = keeping(counted, tmp_path)(*asked, seed=0)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    before = calls
    for _ in range(2):
        np.testing.assert_array_equal(first.scores, keeping(counted, tmp_path)(*asked, seed=0).scores)
    assert calls == before + 1


def test_a_folder_that_cannot_be_written_is_refused_before_the_fit(asked: tuple[ndarray, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = calls
    with pytest.raises(InputError, match=r"cannot write to .*file \(.*--cache"):
        keeping(counted, tmp_path / "file")(*asked, seed=0)
    assert calls == before


def test_nothing_is_kept_without_a_folder() -> None:
    assert keeping(linear, None) is linear
