"""Adapt a recipe (a configuration that comes with the package) to its stores and its number of steps.

Three settings that do not fit are changed, so that they do not stop a first run on plain video: online kNN without the
labels that it needs, the name of a split for a store without splits, and warm-ups longer than the run. Every change is
reported in one line. An unknown split of a store that has splits stays an error. If it were removed, the
run would train on data that the user did not ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robossl.common.config import load
from robossl.data.store import Store
from robossl.training.checkpoint import checkpoints, step_of
from robossl.training.online_knn import why_no_online_knn
from robossl.training.optim import lr_factor, peak_lr
from robossl.training.run_config import DataConfig, RunConfig
from robossl.training.run_folder import RunFolder


def adapt(config: RunConfig, stores: Sequence[Store]) -> tuple[RunConfig, tuple[str, ...]]:
    """Return the adapted configuration, and a line for each change.

    Args:
        config: a recipe with the user's overrides.
        stores: the opened `data.store`, then the opened stores of `data.mix`.
    """
    data, lines = _drop_missing_splits(config.data, stores)
    config, shortened = shorten_warmup(replace(config, data=data))
    lines += shortened
    lacking = why_no_online_knn(stores[0], config.knn) if config.knn else ""
    if lacking:
        config = replace(config, knn=None)
        lines.append(f"online kNN is off: {lacking}")
    return config, tuple(lines)


def shorten_warmup(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """If the warm-up, or that of the heads, does not fit into the run, shorten it to a tenth of the run.

    Returns:
        The configuration, and a list with a line about each change; the list is empty if nothing was changed.
    """
    steps, optim = config.train.steps, config.optim
    fitting = min(max(1, steps // 10), steps - 1)
    warmup, heads = (fitting if each >= steps else each for each in (optim.warmup_steps, optim.warm_head_steps))
    pairs = (("the warm-up", optim.warmup_steps, warmup), ("the warm-up of the heads", optim.warm_head_steps, heads))
    lines = [
        f"{name} of {given} steps does not fit into a run of {steps}: it is shortened to {new}"
        for name, given, new in pairs
        if new != given
    ]
    if not lines:
        return config, []
    return replace(config, optim=replace(optim, warmup_steps=warmup, warm_head_steps=heads)), lines


def describe_lengthening(config: RunConfig, folder: RunFolder) -> tuple[str, ...]:
    """Describe how the schedules change if a run is resumed with more steps; otherwise return ().

    Every schedule is a function of the step and the run's length. A longer run therefore follows another schedule from
    the step at which it resumes.
    """
    saved = checkpoints(folder.checkpoints)
    if not saved:
        return ()
    before, now = load(folder.path / "config.yaml", RunConfig).train.steps, config.train.steps
    if now <= before:
        return ()
    start = step_of(saved[-1])
    peak = peak_lr(config.optim, batch_size=config.train.batch_size)
    was, will = (
        peak * lr_factor(config.optim, step=step, steps=steps) for step, steps in ((start - 1, before), (start, now))
    )
    return (
        f"lengthened from {before} to {now} steps: from step {start} on every schedule is that of a run of {now}; the "
        f"learning rate goes from {was:.2e} to {will:.2e} and ends at step {now}",
    )


def _drop_missing_splits(data: DataConfig, stores: Sequence[Store]) -> tuple[DataConfig, list[str]]:
    """For each store without splits, use all frames instead of the configured split; return a line for each change."""
    first, *others = (not any(store.manifest.splits) for store in stores)
    lines = [
        f"{part.store} has no splits: all of it is trained on, not only split {part.split!r}"
        for part, lacks in zip(data.parts, (first, *others), strict=True)
        if lacks and part.split is not None
    ]
    mix = tuple(replace(part, split=None) if lacks else part for part, lacks in zip(data.mix, others, strict=True))
    return replace(data, split=None if first else data.split, mix=mix), lines
