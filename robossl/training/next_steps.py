"""Suggest commands to run after training. Each suggested command works on the run's store without changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from robossl.common.arguments import spelled
from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluation.command import evaluate
from robossl.evaluation.regress import regress
from robossl.evaluation.run import EvaluationSettings, split_store
from robossl.evaluation.state import StateSettings, open_probe
from robossl.evaluation.task import make_task
from robossl.exporting.export import export
from robossl.exporting.triton_layout import allowed_name
from robossl.probes.command import run as probe
from robossl.probes.profile import Thresholds
from robossl.report.command import report
from robossl.report.neighbours import NUM_NEIGHBOURS

# A probe is suggested only for a store with at least this number of episodes. The probe judges half of the episodes,
# so the store needs twice the number that a verdict requires.
PROBED_EPISODES = 2 * Thresholds().least_clusters(has_label=False)
# Minimum number of episodes per class. These values are tried if the usual minimum leaves fewer than two classes.
FEWER_EPISODES = (2, 1)


def next_steps(run: Path, store: Store, *, label: str = "") -> list[str]:
    """Return the command lines to suggest.

    The first is `regress`, if a column can be predicted. Then comes `evaluate`, if a label can be evaluated, or else
    `probe`, if the store is large enough. The last are `report` and `export`.

    Args:
        run: The run folder.
        store: The store that the run was trained on.
        label: The label to try first for `evaluate`.
    """
    models = {"models": (str(run),), "store": store.path}
    lines = []
    column = next(_readable_columns(store), None)
    if column:
        lines.append(spelled(regress, models | {"column": column}, prog="robossl regress"))
    reading = next(_readable_labels(store, label), None)
    if reading:
        lines.append(spelled(evaluate, models | reading, prog="robossl evaluate"))
    elif store.num_episodes >= PROBED_EPISODES:
        wanted: dict[str, object] = {"encoder": str(run), "data": str(store.path), "profile": "light-and-sensor"}
        lines.append(
            spelled(probe, wanted | {"out": Path("probes") / run.name, "quick": True}, prog="robossl probe run")
        )
    has_neighbours = store.num_episodes > NUM_NEIGHBOURS
    lines.append(
        spelled(report, {"run": run} | ({"store": store.path} if has_neighbours else {}), prog="robossl report")
    )
    name = allowed_name(run.name)
    about = {"run": run, "name": None if name == run.name else name}
    lines.append(spelled(export, about, prog="robossl export"))
    return lines


def _readable_labels(store: Store, first: str) -> Iterator[dict[str, object]]:
    """Yield the options of `evaluate` for each label that can be evaluated, beginning with the label `first`.

    The store's own splits are tried before a new split by episode.
    """
    usual = EvaluationSettings(label=())
    names = sorted(store.label_names, key=lambda name: name != first)
    for min_episodes in (usual.min_episodes, *FEWER_EPISODES):
        for name in names:
            for split_by in (None, "episode"):
                try:
                    splits = split_store(store, replace(usual, split_by=split_by))
                except InputError:
                    continue
                (test,) = splits.tests
                if make_task(store, name, splits, test, min_episodes=min_episodes).is_usable:
                    yield {"label": (name,), "split_by": split_by, "min_episodes": min_episodes}


def _readable_columns(store: Store) -> Iterator[str]:
    """Yield the columns that `regress` can predict: first the scene's state, then the robot's state, then others.

    Only columns that every source of the store has are used.
    """
    columns = [set(source.columns) for source in store.manifest.sources]
    for name in sorted(set.intersection(*columns), key=lambda n: ("environment_state" not in n, "state" not in n, n)):
        try:
            open_probe(store, StateSettings(column=name, bootstrap=0))
        except InputError:
            continue
        yield name
