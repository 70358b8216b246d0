"""Training and test episodes: the store's own splits, or new splits that keep groups (such as a lab) whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from robossl.common.suggest import suggest_name
from robossl.data.store import Store
from robossl.errors import InputError


@dataclass(frozen=True, slots=True)
class Splits:
    """Episode numbers of the training split and of each test split."""

    train_name: str
    train: Int[ndarray, " e"]
    tests: dict[str, Int[ndarray, " e"]]


def store_splits(store: Store, *, train: str, test: tuple[str, ...]) -> Splits:
    """Return the splits that `robossl ingest` wrote into the store.

    Raises:
        InputError: a split is unknown or empty, or the training split is also a test split.
    """
    if train in test:
        raise InputError(
            f"split {train!r} cannot be trained and tested on: every frame would find itself; choose others"
        )
    return Splits(train, _episodes(store, train), {name: _episodes(store, name) for name in test})


def _episodes(store: Store, split: str) -> Int[ndarray, " e"]:
    return np.unique(store.episode_of(store.rows(split)))


def grouped_splits(store: Store, *, by: str, test_fraction: float, seed: int) -> Splits:
    """Split the whole store into training and test episodes; the episodes of a group go to the same split.

    `by` says what a group is: an episode, a lab, a day, or all episodes with the same value of any label. Groups are
    sorted by a hash of the seed and the group's name, so the order in which the store was filled has no effect. The
    first groups form the test split, until it has the share `test_fraction` of the episodes. All other groups form the
    training split. Episodes without a group are left out.

    Raises:
        InputError: the label is unknown, or there are fewer than two groups.
    """
    groups = group_names(store, by)
    names = sorted(set(groups) - {""}, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    if len(names) < 2:
        raise InputError(
            f"cannot split by {by!r}: the store has {len(names)} group(s) of it, two are needed; use another"
        )
    counts = np.array([(groups == name).sum() for name in names])
    num_test = int(np.searchsorted(np.cumsum(counts), test_fraction * counts.sum())) + 1
    num_test = min(num_test, len(names) - 1)
    test, train = (np.flatnonzero(np.isin(groups, part)) for part in (names[:num_test], names[num_test:]))
    return Splits("train", train, {"test": test})


def group_names(store: Store, by: str) -> ndarray:
    """Return for each episode the name of its group; "" if the episode has no group.

    `by` says what a group is: `episode`, `day` (a date in a lab), or a label.

    Raises:
        InputError: the label is unknown.
    """
    if by == "episode":
        return np.asarray(store.episode_id)
    if by == "day" and "day" not in store.label_names:
        days = store.labels("date")
        labs = store.labels("lab") if "lab" in store.label_names else np.full(len(days), "")
        return np.array([f"{lab} {day}".strip() if day else "" for lab, day in zip(labs, days, strict=True)])
    if store.label_names and by not in store.label_names:
        known = suggest_name(
            "group", by, ["episode", *(["day"] if "date" in store.label_names else []), *store.label_names]
        )
        raise InputError(f"{store.path}: {known} (a day needs the label date, a lab the label lab)")
    return store.labels(by)
