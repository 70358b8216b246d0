"""The rows of a table of scores: encoders, their backbones with random weights, and pooled pixels."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robossl.common.config import read_mapping
from robossl.errors import InputError
from robossl.evaluation.result import Kind
from robossl.measure.subjects import Output, Subject, open_subject, pixels_reference
from robossl.measure.subjects.references import MAJORITY, PIXELS, random_subject, reference_config
from robossl.measure.subjects.subject import Backbone

if TYPE_CHECKING:
    from robossl.encoders.encoder import EncoderConfig


@dataclass(frozen=True, slots=True)
class SubjectGroup:
    """One row of a table: an encoder or a baseline, or several of them (such as seeds) whose scores are averaged."""

    name: str  # name of the row; no other row of the table has it
    kind: Kind
    members: tuple[Subject, ...]
    references: tuple[str, ...] = ()  # names of the rows that this row is compared with
    about: tuple[dict[str, Any], ...] = ()  # facts that identify each encoder, for the JSON file


def make_groups(
    models: tuple[str, ...],
    *,
    random_seeds: int,
    seed: int,
    group_seeds: bool = False,
    output: Output = "pooled",
    against: tuple[str, ...] = (),
) -> list[SubjectGroup]:
    """Open the encoders and make the baselines (references) that they are compared with.

    Args:
        models: Models, each in a form that `open_subject` opens.
        random_seeds: Number of random initialisations of each backbone.
        seed: Seed of the first random initialisation.
        group_seeds: Merge the runs whose configurations differ only in their seed into one group.
        output: Features to use: pooled or cls (the class token).
        against: More models, with which every model of `models` is compared too; they get rows of their own.

    Raises:
        InputError: a model cannot be opened, is named twice or does not have the output.
    """
    opened = _open((*models, *against), output)
    configs = {model: reference_config(subject) for model, subject in opened.items()}
    randoms = _random_names(dict.fromkeys(config for config, _ in configs.values()))
    title_counts = Counter(subject.info.name for subject in opened.values())
    taken = {*randoms.values(), PIXELS, MAJORITY}
    members: dict[str, list[str]] = {}
    for model, subject in opened.items():
        merged = group_seeds and model not in against
        members.setdefault(_key_without_seed(model, subject) if merged else model, []).append(model)
    encoders: list[SubjectGroup] = []
    for group in members.values():
        model = group[0]
        subject = opened[model]
        title = subject.info.name if title_counts[subject.info.name] == 1 else model
        wanted = (title, model)
        if len(group) > 1 and (card := subject.card):
            title = f"{card.method} {card.backbone}, {card.step} steps, {_num_seeds(group)}"
            wanted = (title, f"{title} ({model})")
        name = _first_free(wanted, taken)
        taken.add(name)
        compared = (randoms[configs[model][0]], PIXELS, MAJORITY)
        each = tuple(opened[other] for other in group)
        encoders.append(SubjectGroup(name, "encoder", each, compared, tuple(map(_about, each))))
    others = tuple(group.name for group, own in zip(encoders, members.values(), strict=True) if own[0] in against)
    encoders = [
        group if group.name in others else replace(group, references=(*group.references, *others)) for group in encoders
    ]
    backbones = dict(configs.values())
    references = [
        _random_group(name, config, backbones[config], random_seeds, seed, output) for config, name in randoms.items()
    ]
    return [*encoders, *references, SubjectGroup(PIXELS, "pixels", (pixels_reference(),))]


def _open(models: tuple[str, ...], output: Output) -> dict[str, Subject]:
    opened: dict[str, Subject] = {}
    for model in models:
        try:
            subject = open_subject(model, outputs=(output,))
        except InputError as error:
            if "--input." not in str(error):
                raise
            raise InputError(
                f"{error}; only `robossl probe run` has these options, here the graph must say it"
            ) from error
        same = next((name for name, other in opened.items() if other.digest == subject.digest), None)
        if same is not None:
            raise InputError(f"{same} and {model} are the same encoder, to the last weight; name it once")
        opened[model] = subject
    return opened


def _random_names(configs: Iterable[EncoderConfig]) -> dict[EncoderConfig, str]:
    """Name the backbones with random weights, such as "random resnet18".

    If two names are equal, add the input size. If they are still equal, add the mean and std of the colours.
    """
    names = {config: f"random {config.backbone}" for config in configs}
    size, colours = "{0.input_hw[0]}x{0.input_hw[1]}", "(mean {0.mean}, std {0.std})"
    for more in (size, colours):
        repeats = Counter(names.values())
        names = {c: f"{name} {more.format(c)}" if repeats[name] > 1 else name for c, name in names.items()}
    return names


def _first_free(wanted: tuple[str, ...], taken: set[str]) -> str:
    numbered = (f"{wanted[-1]} ({number})" for number in itertools.count(2))
    return next(name for name in itertools.chain(wanted, numbered) if name not in taken)


def _key_without_seed(model: str, subject: Subject) -> str:
    """Return a key that is the same for all runs that differ only in their seed.

    For a model that is not a run, the key is `model`.
    """
    config = _config(model)
    if not config or subject.card is None:
        return model
    return json.dumps([config | {"seed": None}, subject.card.step, subject.card.data], sort_keys=True)


def _num_seeds(models: list[str]) -> str:
    num_seeds = len({_config(model).get("seed") for model in models})
    return f"{num_seeds} seeds" if num_seeds == len(models) else f"{len(models)} runs of {num_seeds} seed(s)"


def _config(model: str) -> dict[str, Any]:
    path = Path(model) / "config.yaml"
    return read_mapping(path) if path.is_file() else {}


def _random_group(
    name: str, config: EncoderConfig, backbone: Backbone, num_seeds: int, seed: int, output: Output
) -> SubjectGroup:
    seeds = range(seed, seed + num_seeds)
    members = tuple(random_subject(config, backbone, seed=each, outputs=(output,)) for each in seeds)
    return SubjectGroup(name, "random", members)


def _about(subject: Subject) -> dict[str, Any]:
    info, card = subject.info, subject.card
    return {
        "source": info.source,
        "name": info.name,
        "digest": card.digest if card else info.sha256,
        "model_sha256": card.model_sha256 if card else info.sha256,
        "precision": info.dtype,
        "backbone": subject.backbone.name if subject.backbone else None,
        "input_hw": card.input.input_hw if card else subject.input_hw,
        "method": card.method if card else None,
        "step": card.step if card else None,
        "config_hash": card.config_hash if card else None,
        "data": card.data if card else [],
        "licences": card.licences if card else [],
    }
