"""Run an evaluation: make splits and tasks, compute features and score them. The caller's callbacks print messages."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import ndarray

from robossl.common.checks import check_range
from robossl.common.version import __version__
from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluation.kept import keeping
from robossl.evaluation.protocol import checked, resolve_protocol
from robossl.evaluation.result import Scores
from robossl.evaluation.score import Candidate, FrameRows, score_task
from robossl.evaluation.splits import Splits, grouped_splits, store_splits
from robossl.evaluation.state import MAX_SEED
from robossl.evaluation.subjects import SubjectGroup, make_groups
from robossl.evaluation.task import LabelTask, check_usable, make_task, why_unusable
from robossl.measure.features import embed
from robossl.measure.store_rows import StoreRows
from robossl.measure.subjects import Subject

# Function that shows progress. It gets the stage's name, the number of units done since the last call, and the total.
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """All settings of an evaluation that affect its results; they are written into the JSON file."""

    label: tuple[str, ...]
    protocol: tuple[str, ...] = ("knn",)
    train: str = "train"
    test: tuple[str, ...] = ("val",)
    split_by: str | None = None
    test_fraction: float = 0.2
    frames_per_episode: int = 8
    min_episodes: int = 5
    bootstrap: int = 2000
    random_seeds: int = 3
    seed: int = 0
    output: Literal["pooled", "cls"] = "pooled"

    def check(self) -> None:
        """Check all settings.

        Raises:
            InputError: a number is outside its range, or a name is missing or unknown.
        """
        least = {"frames_per_episode": 1, "min_episodes": 1, "bootstrap": 100, "random_seeds": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        check_range(0, MAX_SEED, seed=self.seed)
        if not 0 < self.test_fraction < 1:
            raise InputError(f"test_fraction must lie between 0 and 1, got {self.test_fraction}")
        for name in ("label", "protocol", "test"):
            if not getattr(self, name):
                raise InputError(f"{name} needs at least one name, got none")
        for name in self.protocol:
            resolve_protocol(name)


def run_evaluation(
    models: tuple[str, ...],
    store: Store,
    settings: EvaluationSettings,
    *,
    against: tuple[str, ...] = (),
    cache: Path | None = None,
    group_seeds: bool = False,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
    watch: Watch = lambda what, done, total: None,
) -> Scores:
    """Evaluate models on a store.

    Args:
        models: Models, each in a form that `open_subject` opens.
        store: Store with labelled episodes.
        settings: What to measure.
        against: More models, with which every model of `models` is compared.
        cache: Folder that keeps features and scores; None keeps nothing.
        group_seeds: Merge the runs whose configurations differ only in their seed into one row.
        command: The command line, to be written into the JSON file.
        say: Function that is called with a line of text before the work starts.
        watch: Function that is called with the progress; see `Watch`.

    Raises:
        InputError: the settings, labels, splits, models or a protocol's predictions cannot be used.
    """
    started = time.perf_counter()
    _check_labels(store, settings, models)
    settings.check()
    splits = split_store(store, settings)
    tasks = [
        make_task(store, label, splits, test, min_episodes=settings.min_episodes)
        for label in dict.fromkeys(settings.label)
        for test in splits.tests
    ]
    check_usable(tasks, min_episodes=settings.min_episodes, split_by=settings.split_by)
    usable = [task for task in tasks if task.is_usable]
    groups = make_groups(
        models,
        random_seeds=settings.random_seeds,
        seed=settings.seed,
        group_seeds=group_seeds,
        output=settings.output,
        against=against,
    )
    episodes = np.unique(np.concatenate([part for task in usable for part in (task.train, task.test)]))
    frames = FrameRows.of(store, episodes, per_episode=settings.frames_per_episode)
    say(_plan(usable, groups, frames, settings))
    candidates = _embed(groups, store, frames, cache, watch)
    num_fits = len(usable) * len(settings.protocol) * sum(len(candidate.features) for candidate in candidates)
    results = tuple(
        score_task(
            task,
            frames,
            candidates,
            keeping(checked(resolve_protocol(protocol)), cache),
            protocol_name=protocol,
            num_resamples=settings.bootstrap,
            seed=settings.seed,
            advance=lambda fits: watch("score", fits, num_fits),
        )
        for protocol in settings.protocol
        for task in usable
    )
    left_out = [why_unusable(task, min_episodes=settings.min_episodes) for task in tasks if not task.is_usable]
    about = _about(store, settings, groups, command) | {"seconds": round(time.perf_counter() - started, 1)}
    return Scores(about, results, (*left_out, *_remarks(store, settings, groups)))


def _check_labels(store: Store, settings: EvaluationSettings, models: tuple[str, ...]) -> None:
    """Check the labels first, because a store without labels cannot be evaluated at all."""
    probe = shlex.join(["robossl", "probe", "run", *models[:1], "--data", str(store.path)])
    probe += " --profile light-and-sensor --out OUT"
    if not settings.label:
        known = shlex.join(["robossl", "info", str(store.path)])
        raise InputError(f"name a label (`{known}` lists them); without labels: {probe}")
    for label in settings.label:
        try:
            store.labels(label)
        except InputError as error:
            if store.label_names:
                raise
            raise InputError(f"{error}; or measure it without labels: {probe}") from None


def split_store(store: Store, settings: EvaluationSettings) -> Splits:
    """Return the splits of the store, or new splits if the settings have `split_by`.

    Raises:
        InputError: a split or label is unknown, or there are too few groups for `split_by`.
    """
    if settings.split_by is None:
        return store_splits(store, train=settings.train, test=settings.test)
    return grouped_splits(store, by=settings.split_by, test_fraction=settings.test_fraction, seed=settings.seed)


def _embed(
    groups: list[SubjectGroup], store: Store, frames: FrameRows, cache: Path | None, watch: Watch
) -> list[Candidate]:
    total = len(frames.rows) * sum(len(group.members) for group in groups)
    source = StoreRows(store, frames.rows)

    def features(subject: Subject) -> ndarray:
        (features,) = embed(subject, source, cache=cache, advance=lambda done: watch("embed", done, total)).values()
        return features

    return [
        Candidate(group.name, group.kind, tuple(map(features, group.members)), group.references) for group in groups
    ]


def _plan(tasks: list[LabelTask], groups: list[SubjectGroup], frames: FrameRows, settings: EvaluationSettings) -> str:
    num_subjects = sum(len(group.members) for group in groups)
    questions = ", ".join(f"{task.label} on {task.test_name}" for task in tasks)
    return (
        f"embed {len(frames.rows)} frames of {len(np.unique(frames.episodes))} episodes {num_subjects} times "
        f"({', '.join(group.name for group in groups)}), then {' and '.join(settings.protocol)} for {questions}"
    )


def _remarks(store: Store, settings: EvaluationSettings, groups: list[SubjectGroup]) -> list[str]:
    """Return a warning if encoders were trained on the store before it was split anew: they may know test frames."""
    trained = [group.name for group in groups if any(store.content_hash in about["data"] for about in group.about)]
    if settings.split_by is None or not trained:
        return []
    return [
        f"{', '.join(trained)} was pretrained on this store, and the split by {settings.split_by} was made afterwards: "
        "its test frames may have been seen, without labels."
    ]


def _about(store: Store, settings: EvaluationSettings, groups: list[SubjectGroup], command: str) -> dict[str, Any]:
    packages = ("torch", "scikit-learn", "numpy")
    return {
        "command": command,
        "settings": asdict(settings),
        "store": {
            "name": store.path.name,
            "content_hash": store.content_hash,
            "licences": store.manifest.licences,
            "num_episodes": store.num_episodes,
            "num_frames": store.num_frames,
        },
        "encoders": [about for group in groups for about in group.about],
        "embedders": {name: each.digest for group in groups for name, each in _named_members(group, settings.seed)},
        "versions": {"robossl": __version__, "python": platform.python_version()}
        | {package: version(package) for package in packages},
    }


def _named_members(group: SubjectGroup, seed: int) -> Iterator[tuple[str, Subject]]:
    for i, member in enumerate(group.members):
        match group.kind:
            case "encoder":
                yield member.info.source, member
            case "random":
                yield f"{group.name}, seed {seed + i}", member
            case _:
                yield group.name, member
