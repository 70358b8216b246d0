"""The whole evaluation: splits, tasks, features, scores; no printing but what the caller's callbacks do."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluate.features import embed_rows
from robossl.evaluate.kept import keeping
from robossl.evaluate.protocol import resolve_protocol
from robossl.evaluate.result import Evaluation
from robossl.evaluate.score import Candidate, Frames, score_task
from robossl.evaluate.splits import Splits, grouped_splits, store_splits
from robossl.evaluate.state import MOST_SEED
from robossl.evaluate.subjects import Output, Subject, make_subjects
from robossl.evaluate.task import Task, check_usable, make_task, why_unusable
from robossl.version import __version__

Watch = Callable[[str, int, int], None]  # what is being done, units done since the last call, units in all


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides the outcome; written into the JSON."""

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
    output: Output = "pooled"

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            InputError: a number outside its range, a name missing or unknown.
        """
        least = {"frames_per_episode": 1, "min_episodes": 1, "bootstrap": 100, "random_seeds": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"--{name.replace('_', '-')} must be at least {smallest}, got {getattr(self, name)}")
        if not 0 <= self.seed <= MOST_SEED:
            raise InputError(f"--seed must lie in 0 to {MOST_SEED}, got {self.seed}")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"--test-fraction must lie between 0 and 1, got {self.test_fraction}")
        for name in ("label", "protocol", "test"):
            if not getattr(self, name):
                raise InputError(f"--{name} needs at least one name")
        for name in self.protocol:
            resolve_protocol(name)


def run_evaluation(
    models: tuple[str, ...],
    store: Store,
    settings: Settings,
    *,
    cache: Path | None = None,
    group_seeds: bool = False,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
    watch: Watch = lambda what, done, total: None,
) -> Evaluation:
    """Evaluate models on a store.

    Args:
        models: Run folders, encoder folders or exported models.
        store: Labelled episodes.
        settings: What to measure.
        cache: Folder for features and scores; None keeps none.
        group_seeds: Make one row of the runs whose configurations differ in their seed alone.
        command: The command line, kept in the JSON.
        say: Takes a line on what is about to be done.
        watch: Takes progress.

    Raises:
        InputError: settings, labels, splits or models that cannot be used.
    """
    started = time.perf_counter()
    settings.check()
    for label in settings.label:
        store.labels(label)  # before the splits: a store without labels cannot be evaluated, however it is split
    splits = split_store(store, settings)
    tasks = [
        make_task(store, label, splits, test, min_episodes=settings.min_episodes)
        for label in dict.fromkeys(settings.label)
        for test in splits.tests
    ]
    check_usable(tasks, min_episodes=settings.min_episodes)
    usable = [task for task in tasks if task.is_usable]
    subjects = make_subjects(
        models,
        random_seeds=settings.random_seeds,
        seed=settings.seed,
        group_seeds=group_seeds,
        output=settings.output,
    )
    episodes = np.unique(np.concatenate([part for task in usable for part in (task.train, task.test)]))
    frames = Frames.of(store, episodes, per_episode=settings.frames_per_episode)
    say(_plan(usable, subjects, frames, settings))
    candidates = _embed(subjects, store, frames, cache, watch)
    num_fits = len(usable) * len(settings.protocol) * sum(len(candidate.features) for candidate in candidates)
    results = tuple(
        score_task(
            task,
            frames,
            candidates,
            keeping(resolve_protocol(protocol), cache),
            protocol_name=protocol,
            num_resamples=settings.bootstrap,
            seed=settings.seed,
            advance=lambda fits: watch("score", fits, num_fits),
        )
        for protocol in settings.protocol
        for task in usable
    )
    left_out = [why_unusable(task, min_episodes=settings.min_episodes) for task in tasks if not task.is_usable]
    about = _about(store, settings, subjects, command) | {"seconds": round(time.perf_counter() - started, 1)}
    return Evaluation(about, results, (*left_out, *_remarks(store, settings, subjects)))


def split_store(store: Store, settings: Settings) -> Splits:
    """The splits of the store, or new ones by `split_by`.

    Raises:
        InputError: the store has no such split or label, or too few groups.
    """
    if settings.split_by is None:
        return store_splits(store, train=settings.train, test=settings.test)
    return grouped_splits(store, by=settings.split_by, test_fraction=settings.test_fraction, seed=settings.seed)


def _embed(subjects: list[Subject], store: Store, frames: Frames, cache: Path | None, watch: Watch) -> list[Candidate]:
    total = len(frames.rows) * sum(len(subject.embedders) for subject in subjects)
    return [
        Candidate(
            subject.name,
            subject.kind,
            tuple(
                embed_rows(each, store, frames.rows, cache=cache, advance=lambda done: watch("embed", done, total))
                for each in subject.embedders
            ),
            subject.references,
        )
        for subject in subjects
    ]


def _plan(tasks: list[Task], subjects: list[Subject], frames: Frames, settings: Settings) -> str:
    passes = sum(len(subject.embedders) for subject in subjects)
    asked = ", ".join(f"{task.label} on {task.test_name}" for task in tasks)
    return (
        f"embed {len(frames.rows)} frames of {len(np.unique(frames.episodes))} episodes {passes} times "
        f"({', '.join(subject.name for subject in subjects)}), then {' and '.join(settings.protocol)} for {asked}"
    )


def _remarks(store: Store, settings: Settings, subjects: list[Subject]) -> list[str]:
    """What a reader must know of this store, split and encoder."""
    seen = [s.name for s in subjects if any(store.content_hash in about["data"] for about in s.about)]
    if settings.split_by is None or not seen:
        return []
    return [
        f"{', '.join(seen)} was pretrained on this store, and the split by {settings.split_by} was made afterwards: "
        "its test frames may have been seen, without labels."
    ]


def _about(store: Store, settings: Settings, subjects: list[Subject], command: str) -> dict[str, Any]:
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
        "encoders": [about for subject in subjects for about in subject.about],
        "embedders": {each.name: each.digest for subject in subjects for each in subject.embedders},
        "versions": {"robossl": __version__, "python": platform.python_version()}
        | {package: version(package) for package in packages},
    }
