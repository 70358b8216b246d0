"""`robossl evaluate`: measure encoders and print the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def evaluate(
    models: tuple[str, ...],
    *,
    store: Path,
    label: tuple[str, ...],
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
    """Measure how well labels can be read off frozen features, beside references that have learned nothing.

    Args:
        models: Run folders, encoder folders or exported models.
        store: Store with labelled episodes.
        label: Labels to read, e.g. scene object verb.
        protocol: knn, linear, or both.
        train: Split whose labels are given.
        test: Splits whose labels are asked for.
        split_by: Instead of the store's splits: keep every episode, lab, day, or value of any label, on one side.
        test_fraction: Share of episodes tested with --split-by.
        frames_per_episode: Frames embedded of each episode, evenly spaced.
        min_episodes: A class counts with this many episodes in both splits.
        bootstrap: Resamples of the episodes behind an interval.
        random_seeds: Random inits that the reference averages over.
        seed: Seed of random inits, resamples, cross-validation and --split-by.
        output: pooled, or cls: the class token of a ViT, which DINO and MoCo v3 train and their papers read.
        cache: Folder that keeps features and scores for the next time. Default: RUN/features of the first run folder.
        out: JSON file of everything. Default: RUN/evaluation.json when one run folder is evaluated.
        markdown: Print markdown instead of terminal tables.
    """
    from rich.console import Console

    from robossl.evaluate import api
    from robossl.evaluate.table import print_tables, to_markdown

    scores = api.evaluate(
        models,
        store=store,
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
        cache=cache,
        out=out,
    )
    if markdown:
        print(to_markdown(scores), end="")
    else:
        print_tables(scores, Console())
