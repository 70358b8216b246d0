"""`robossl evaluate`: measure encoders and print the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def evaluate(
    models: tuple[str, ...],
    *,
    store: Path,
    label: tuple[str, ...] = (),
    against: tuple[str, ...] = (),
    protocol: tuple[str, ...] = ("knn",),
    train: str = "train",
    test: tuple[str, ...] = ("val",),
    split_by: str | None = None,
    test_fraction: float = 0.2,
    frames_per_episode: int = 8,
    min_episodes: int = 5,
    bootstrap: int = 2000,
    random_seeds: int = 3,
    seed: int = 0,
    output: Literal["pooled", "cls"] = "pooled",
    cache: Path | None = None,
    out: Path | None = None,
    markdown: bool = False,
) -> None:
    """Measure how well labels can be predicted from frozen features; compare the encoders with untrained baselines.

    Args:
        models: Run folders, encoder folders or exported models.
        store: Store with labelled episodes.
        label: Labels to predict, such as scene object verb; at least one is needed.
        against: More encoders, with which each encoder is compared, such as the public one that it was adapted from.
        protocol: knn, linear, or both.
        train: Split to train on.
        test: Splits to test on.
        split_by: Make new splits that divide no group of episodes between training and test. A group is an episode, a
            lab, a day, or all episodes with the same value of any label. Default: the splits of the store.
        test_fraction: Share of episodes in the test split that --split-by makes.
        frames_per_episode: Number of frames to use of each episode, evenly spaced.
        min_episodes: Leave out classes with fewer episodes than this in the training split or in the test split.
        bootstrap: Number of bootstrap resamples of the episodes, which give the confidence intervals.
        random_seeds: Number of random initialisations that the baseline with random weights averages over.
        seed: Seed of random weights, resamples, cross-validation and --split-by.
        output: Features to use: pooled, or cls for the class token of a ViT, as in the papers of DINO and MoCo v3.
        cache: Folder that keeps features and scores for the next evaluation. Default: RUN/features of the first run
            folder.
        out: JSON file to write with all results. Default: RUN/evaluation.json if one run folder is evaluated.
        markdown: Print markdown instead of terminal tables.
    """
    from rich.console import Console

    from robossl.evaluation import api
    from robossl.evaluation.table import print_tables, to_markdown

    scores = api.evaluate(
        models,
        store=store,
        label=label,
        against=against,
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
        cache=cache,
        out=out,
    )
    if markdown:
        print(to_markdown(scores), end="")
    else:
        print_tables(scores, Console())
