from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from robossl.errors import InputError
from robossl.evaluation import PROTOCOLS
from robossl.evaluation.linear import linear
from robossl.evaluation.protocol import resolve_protocol
from robossl.measure.knn import CHUNK, weighted_knn
from robossl.measure.logistic import GRID, UNVALIDATED, choose_c
from robossl.measure.metrics import balanced_accuracy

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


def clusters(num_groups: int, *, seed: int, apart: float = 1.0, num_classes: int = 3, dims: int = 16) -> Data:
    """Episodes of 4 near-copied frames: features, classes, episodes."""
    centres = apart * np.random.default_rng(99).normal(size=(num_classes, dims))
    generator = np.random.default_rng(seed)
    labels = np.arange(num_groups) % num_classes
    episodes = centres[labels] + generator.normal(size=(num_groups, dims))
    frames = np.repeat(episodes, 4, axis=0) + 0.05 * generator.normal(size=(4 * num_groups, dims))
    return frames.astype(np.float32), np.repeat(labels, 4), np.repeat(np.arange(num_groups), 4)


def knn_by_loops(
    train: torch.Tensor,
    labels: torch.Tensor,
    test: torch.Tensor,
    *,
    k: int,
    temperature: float,
) -> torch.Tensor:
    scores = torch.zeros(len(test), int(labels.max()) + 1, dtype=torch.float64)
    for i, query in enumerate(test.double()):
        cosines = [(float(query @ row / (query.norm() * row.norm())), j) for j, row in enumerate(train.double())]
        for cosine, j in sorted(cosines, reverse=True)[:k]:
            scores[i, labels[j]] += math.exp(cosine / temperature)
        scores[i] /= scores[i].sum()
    return scores


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.2), (200, 0.07)])
def test_knn_equals_a_double_loop(k: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(k)
    train, test = torch.randn(60, 8, generator=generator) * 7, torch.randn(9, 8, generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    expected = knn_by_loops(train, labels, test, k=k, temperature=temperature)
    scores = weighted_knn(train.numpy(), labels.numpy(), test.numpy(), k=k, temperature=temperature)
    torch.testing.assert_close(torch.from_numpy(scores).double(), expected, atol=1e-5, rtol=1e-4)


def test_knn_does_not_depend_on_chunks() -> None:
    generator = np.random.default_rng(0)
    train, test, labels = (
        generator.normal(size=(50, 8)),
        generator.normal(size=(CHUNK + 3, 8)),
        np.arange(50) % 3,
    )
    whole = weighted_knn(train, labels, test)
    last = weighted_knn(train, labels, test[-5:])
    np.testing.assert_allclose(whole[-5:], last, rtol=1e-5)


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(InputError, match="linear"):
        resolve_protocol("liner")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_learns_what_is_there_and_nothing_else(name: str) -> None:
    protocol = resolve_protocol(name)
    train, labels, groups = clusters(60, seed=0)
    test, truth, _ = clusters(60, seed=1)
    scores, details = protocol(train, labels, groups, test, seed=0)
    assert scores.shape == (240, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert balanced_accuracy(truth, scores.argmax(axis=1)) > 0.85
    assert details
    shuffled = np.random.default_rng(0).permutation(60)[groups] % 3
    scores, _ = protocol(train, shuffled, groups, test, seed=0)
    assert balanced_accuracy(truth, scores.argmax(axis=1)) < 0.6


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_the_same_twice(name: str) -> None:
    protocol = resolve_protocol(name)
    train, labels, groups = clusters(30, seed=0)
    first, second = (protocol(train, labels, groups, train, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.scores, second.scores)


def test_linear_is_indifferent_to_scale_and_to_dead_features() -> None:
    train, labels, groups = clusters(30, seed=0)
    test, _, _ = clusters(12, seed=1)
    dead = np.full((1, 1), 3.7, dtype=np.float32)
    plain = linear(train, labels, groups, test, seed=0)
    wide = [np.hstack([100 * x, np.repeat(dead, len(x), axis=0)]) for x in (train, test)]
    scaled = linear(wide[0], labels, groups, wide[1], seed=0)
    np.testing.assert_allclose(scaled.scores, plain.scores, atol=1e-3)


def test_linear_reports_its_choice() -> None:
    train, labels, groups = clusters(30, seed=0)
    details = linear(train, labels, groups, train, seed=0).details
    assert details["converged"] is True
    assert details["c"] in GRID


def test_cross_validation_keeps_groups_whole() -> None:
    """Labels that only name the episode cannot be learned across episodes, but would be across frames."""
    frames, _, groups = clusters(60, seed=0, apart=0.0)
    random_labels = np.random.default_rng(1).integers(0, 3, 60)[groups]
    by_group = choose_c(frames, random_labels, groups, seed=0)
    by_frame = choose_c(frames, random_labels, np.arange(len(groups)), seed=0)
    assert by_group["cross_validated"] < 0.6
    assert by_frame["cross_validated"] > by_group["cross_validated"] + 0.1


@pytest.mark.parametrize(("num_groups", "folds"), [(9, 3), (6, 2), (3, 0)])
def test_folds_shrink_with_the_smallest_class(num_groups: int, folds: int) -> None:
    train, labels, groups = clusters(num_groups, seed=0)
    details = linear(train, labels, groups, train, seed=0).details
    assert details["folds"] == folds
    assert folds or details["c"] == UNVALIDATED
