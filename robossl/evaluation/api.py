"""`robossl.evaluate`: score encoders on labels, and compare them with baselines such as random weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from robossl.common.arguments import spelled
from robossl.common.atomic_io import check_out, write_text
from robossl.common.paths import StrPath
from robossl.common.progress import Progress
from robossl.data.store import open_store
from robossl.errors import InputError
from robossl.evaluation.result import Scores
from robossl.evaluation.run import EvaluationSettings, run_evaluation


def evaluate(
    models: StrPath | Sequence[StrPath],
    *,
    store: StrPath,
    label: str | Sequence[str] = (),
    against: StrPath | Sequence[StrPath] = (),
    protocol: str | Sequence[str] = ("knn",),
    train: str = "train",
    test: str | Sequence[str] = ("val",),
    split_by: str | None = None,
    test_fraction: float = 0.2,
    frames_per_episode: int = 8,
    min_episodes: int = 5,
    bootstrap: int = 2000,
    random_seeds: int = 3,
    seed: int = 0,
    output: Literal["pooled", "cls"] = "pooled",
    cache: StrPath | None = None,
    out: StrPath | None = None,
) -> Scores:
    """Measure how well labels can be predicted from frozen features; compare the encoders with untrained baselines.

    Args:
        models: One or several encoders, each in a form that `load_encoder` takes.
        store: Store with labelled episodes.
        label: One or several labels to predict, such as "scene"; at least one is needed.
        against: More encoders, with which each encoder is compared, such as the public one that it was adapted from.
        protocol: "knn", "linear", or both.
        train: Split to train on.
        test: Split or splits to test on.
        split_by: Make new splits that divide no group of episodes between training and test. A group is an "episode",
            a "lab", a "day", or all episodes with the same value of any label. By default, use the splits of the store.
        test_fraction: Share of episodes in the test split that `split_by` makes.
        frames_per_episode: Number of frames to use of each episode, evenly spaced.
        min_episodes: Leave out classes with fewer episodes than this in the training split or in the test split.
        bootstrap: Number of bootstrap resamples of the episodes, which give the confidence intervals.
        random_seeds: Number of random initialisations that the baseline with random weights averages over.
        seed: Seed of random weights, resamples, cross-validation and `split_by`.
        output: Features to use: "pooled", or "cls" for the class token of a ViT.
        cache: Folder that keeps features and scores for the next evaluation; by default RUN/features of the first run.
        out: JSON file to write with all results; by default RUN/evaluation.json if one run is evaluated.

    Returns:
        The scores. They print as tables; `results` has every number with its interval.

    Raises:
        InputError: a label, split or model cannot be used.

    Example:
        >>> import robossl
        >>> scores = robossl.evaluate("runs/tiny", store="stores/clips", label="scene",
        ...                           min_episodes=1, bootstrap=100, random_seeds=1)
        >>> result = scores.results[0]
        >>> result.label, [row.name for row in result.rows]
        ('scene', ['tiny', 'random test_resnet', 'pooled pixels', 'majority class'])
    """
    given = locals()
    models, label, protocol, test, against = map(_several, (models, label, protocol, test, against))
    if not models:
        raise InputError("nothing to evaluate; name a run folder, an encoder folder or an exported model")
    names: dict[str, object] = {
        "models": models,
        "label": label,
        "protocol": protocol,
        "test": test,
        "against": against,
    }
    names |= {"cache": None, "out": None}
    settings = EvaluationSettings(
        label=label,
        protocol=protocol,
        train=train,
        test=test,
        split_by=split_by,
        test_fraction=test_fraction,
        frames_per_episode=frames_per_episode,
        min_episodes=min_episodes,
        bootstrap=bootstrap,
        random_seeds=random_seeds,
        seed=seed,
        output=output,
    )
    runs = [Path(model) for model in models if (Path(model) / "encoder").is_dir()]
    cache = cache or (runs[0] / "features" if runs else None)
    out = out or (runs[0] / "evaluation.json" if len(runs) == len(models) == 1 else None)
    check_out(None if out is None else Path(out))
    with Progress(stderr=True) as progress:
        scores = run_evaluation(
            models,
            open_store(store),
            settings,
            against=against,
            cache=None if cache is None else Path(cache),
            command=spelled(evaluate, given | names | {"store": os.fspath(store)}, prog="robossl evaluate"),
            say=progress.say,
            watch=progress.advance,
        )
        if out:
            write_text(Path(out), scores.to_json())
            progress.say(f"wrote {out}")
    return scores


def _several(given: StrPath | Sequence[StrPath]) -> tuple[str, ...]:
    """Return one or several names or paths as a tuple of strings."""
    return (os.fspath(given),) if isinstance(given, str | os.PathLike) else tuple(os.fspath(each) for each in given)
