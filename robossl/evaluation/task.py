"""Make a classification task of one label and one test split; keep classes with enough episodes in both splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluation.splits import Splits, group_names

# Minimum number of recording days for each class, so that cross-validation can keep days whole.
MIN_GROUPS = 3


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Number of episodes of a class in each split."""

    name: str
    train: int
    test: int


@dataclass(frozen=True, slots=True)
class LabelTask:
    """The episodes to train and test on, and their classes, numbered in the order of `classes`."""

    label: str
    train_name: str
    test_name: str
    classes: tuple[ClassCount, ...]
    dropped: tuple[ClassCount, ...]
    train: Int[ndarray, " e"]  # numbers of the training episodes
    test: Int[ndarray, " f"]
    train_labels: Int[ndarray, " e"]
    test_labels: Int[ndarray, " f"]
    grouped_by: str  # "day" or "episode": the unit that cross-validation on `train` never divides
    groups: Int[ndarray, " e"]

    @property
    def is_usable(self) -> bool:
        """Whether there are at least two classes."""
        return len(self.classes) >= 2


def make_task(store: Store, label: str, splits: Splits, test_name: str, *, min_episodes: int) -> LabelTask:
    """Count the episodes of each class in the training and the test split; keep classes with enough episodes in both.

    Raises:
        InputError: the label is unknown.
    """
    names = store.labels(label)
    train, test = splits.train, splits.tests[test_name]
    counts = [
        ClassCount(str(name), int((names[train] == name).sum()), int((names[test] == name).sum()))
        for name in np.unique(names[np.concatenate([train, test])])
        if name
    ]
    kept = tuple(c for c in counts if min(c.train, c.test) >= min_episodes)
    classes = [c.name for c in kept]
    train, test = train[np.isin(names[train], classes)], test[np.isin(names[test], classes)]
    train_labels, test_labels = _numbered(names[train], classes), _numbered(names[test], classes)
    grouped_by, groups = _groups(store, train, train_labels)
    return LabelTask(
        label=label,
        train_name=splits.train_name,
        test_name=test_name,
        classes=kept,
        dropped=tuple(c for c in counts if c not in kept),
        train=train,
        test=test,
        train_labels=train_labels,
        test_labels=test_labels,
        grouped_by=grouped_by,
        groups=groups,
    )


def _numbered(names: ndarray, classes: list[str]) -> Int[ndarray, " e"]:
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[str(name)] for name in names], dtype=np.int64)


def _groups(store: Store, episodes: Int[ndarray, " e"], labels: Int[ndarray, " e"]) -> tuple[str, Int[ndarray, " e"]]:
    """Return what a group is ("day" or "episode"), and the group of each episode. Cross-validation divides no group.

    A group is a recording day if the store knows the day of each episode and every class has enough days. Otherwise
    each episode is a group.
    """
    if "date" in store.label_names or "day" in store.label_names:
        days = group_names(store, "day")[episodes]
        if (days != "").all() and all(len(np.unique(days[labels == c])) >= MIN_GROUPS for c in np.unique(labels)):
            return "day", np.unique(days, return_inverse=True)[1]
    return "episode", episodes


def check_usable(tasks: list[LabelTask], *, min_episodes: int, split_by: str | None = None) -> None:
    """Check that at least one task has two classes.

    Raises:
        InputError: no task has two classes. The message names the largest classes of each task and says what to do.
    """
    if any(task.is_usable for task in tasks):
        return
    regroup = "regroup (evaluate --split-by)" if split_by is None else "draw another split (--seed, --test-fraction)"
    counts = "; ".join(f"{task.label} on {task.test_name}: {_largest(task)}" for task in tasks)
    raise InputError(
        f"no label has two classes with at least {min_episodes} episodes in both splits ({counts}); "
        f"lower --min-episodes, choose another label or test split, or {regroup}"
    )


def why_unusable(task: LabelTask, *, min_episodes: int) -> str:
    """Explain in one sentence why a label is left out on a test split."""
    return (
        f"{task.label} on {task.test_name} is left out: {len(task.classes)} class(es) with at least "
        f"{min_episodes} episodes in both splits, two are needed ({_largest(task)})"
    )


def _largest(task: LabelTask, limit: int = 4) -> str:
    counts = sorted(task.classes + task.dropped, key=lambda c: min(c.train, c.test), reverse=True)
    if not counts:
        return f"no episode of {task.train_name} or {task.test_name} has this label"
    return ", ".join(f"{c.name} {c.train} train / {c.test} test" for c in counts[:limit])
