"""What an evaluation compares: the encoders asked for, random init of their backbones, pooled pixels."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.config import read_mapping
from robossl.encode import FrameEncoder, identity, load_encoder, random_encoder
from robossl.encoder import EncoderConfig
from robossl.errors import InputError
from robossl.evaluate.features import Embedder, pixels_embedder
from robossl.evaluate.result import Kind
from robossl.evaluate.score import MAJORITY

if TYPE_CHECKING:
    from robossl_client.card import EncoderCard


Output = Literal["pooled", "cls"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One line of the table: an embedder, or several whose accuracies are averaged (seeds of random init)."""

    name: str  # no two of an evaluation have the same
    kind: Kind
    embedders: tuple[Embedder, ...]
    references: tuple[str, ...] = ()
    about: tuple[dict[str, Any], ...] = ()  # identity of each encoder, for the JSON


def make_subjects(
    models: tuple[str, ...], *, random_seeds: int, seed: int, group_seeds: bool = False, output: Output = "pooled"
) -> list[Subject]:
    """Load the encoders and make their references; runs that differ in their seed alone are one subject when grouped.

    Raises:
        InputError: a model that cannot be loaded, is there twice or has no such output.
    """
    loaded = _load(models, output)
    names = Counter(encode.card.name for _, encode in loaded)
    randoms = _random_names(random_config(encode.card) for _, encode in loaded)
    pixels = pixels_embedder()
    taken = {*randoms.values(), pixels.name, MAJORITY}
    groups: dict[str, list[tuple[str, FrameEncoder]]] = {}
    for model, encode in loaded:
        groups.setdefault(_but_for_seed(model, encode.card) if group_seeds else model, []).append((model, encode))
    encoders: list[Subject] = []
    for members in groups.values():
        model, encode = members[0]
        card = encode.card
        title = card.name if names[card.name] == 1 else model
        wanted = (title, model)
        if len(members) > 1:
            title = f"{card.method} {card.backbone}, {card.step} steps, {_num_seeds(members)}"
            wanted = (title, f"{title} ({model})")
        name = _first_free(wanted, taken)
        taken.add(name)
        compared = (randoms[random_config(card)], pixels.name, MAJORITY)
        each = tuple(embedder(other, one, output) for other, one in members)
        about = tuple(_about(one.card, other) for other, one in members)
        encoders.append(Subject(name, "encoder", each, compared, about))
    references = [_random(name, config, random_seeds, seed, output) for config, name in randoms.items()]
    return [*encoders, *references, Subject(pixels.name, "pixels", (pixels,))]


def _load(models: tuple[str, ...], output: Output) -> list[tuple[str, FrameEncoder]]:
    loaded: dict[str, tuple[str, FrameEncoder]] = {}
    for model in models:
        encode = load_encoder(model, outputs=(output,))
        key = identity(encode.card)
        if key in loaded:
            raise InputError(f"{loaded[key][0]} and {model} are the same encoder, to the last weight; name it once")
        loaded[key] = model, encode
    return list(loaded.values())


def _random_names(configs: Iterable[EncoderConfig]) -> dict[EncoderConfig, str]:
    """What random weights are called: their backbone, then the size and colours of what they see where it repeats."""
    names = {config: f"random {config.backbone}" for config in configs}
    size, colours = "{0.input_hw[0]}x{0.input_hw[1]}", "(mean {0.mean}, std {0.std})"
    for more in (size, colours):
        repeats = Counter(names.values())
        names = {c: f"{name} {more.format(c)}" if repeats[name] > 1 else name for c, name in names.items()}
    return names


def _first_free(wanted: tuple[str, ...], taken: set[str]) -> str:
    numbered = (f"{wanted[-1]} ({number})" for number in itertools.count(2))
    return next(name for name in itertools.chain(wanted, numbered) if name not in taken)


def _but_for_seed(model: str, card: EncoderCard) -> str:
    """What runs have in common that differ in their seed alone; anything but a run folder is itself."""
    config = _config(model)
    return json.dumps([config | {"seed": None}, card.step, card.data], sort_keys=True) if config else model


def _num_seeds(members: list[tuple[str, FrameEncoder]]) -> str:
    num_seeds = len({_config(model).get("seed") for model, _ in members})
    return f"{num_seeds} seeds" if num_seeds == len(members) else f"{len(members)} runs of {num_seeds} seed(s)"


def _config(model: str) -> dict[str, Any]:
    path = Path(model) / "config.yaml"
    return read_mapping(path) if path.is_file() else {}


def embedder(name: str, encode: FrameEncoder, output: Output = "pooled") -> Embedder:
    """One output of an encoder; its digest tells apart weights, preprocessing, exported graph, precision and output."""

    def features(frames: UInt8[ndarray, "b h w 3"]) -> Float[ndarray, "b d"]:
        return encode(frames)[output]

    digest = identity(encode.card)
    return Embedder(name, digest if output == "pooled" else f"{digest} {output}", features)


def random_config(card: EncoderCard) -> EncoderConfig:
    """The backbone of a card before any training, with the same preprocessing."""
    return EncoderConfig(
        backbone=card.backbone,
        input_hw=card.input.input_hw,
        mean=(card.input.mean[0], card.input.mean[1], card.input.mean[2]),
        std=(card.input.std[0], card.input.std[1], card.input.std[2]),
    )


def _random(name: str, config: EncoderConfig, num_seeds: int, seed: int, output: Output) -> Subject:
    seeds = range(seed, seed + num_seeds)
    encodes = [random_encoder(config, each, outputs=(output,)) for each in seeds]
    return Subject(
        name,
        "random",
        tuple(embedder(f"{name}, seed {s}", encode, output) for s, encode in zip(seeds, encodes, strict=True)),
    )


def _about(card: EncoderCard, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "name": card.name,
        "digest": card.digest,
        "model_sha256": card.model_sha256,
        "precision": card.precision,
        "backbone": card.backbone,
        "input_hw": card.input.input_hw,
        "method": card.method,
        "step": card.step,
        "config_hash": card.config_hash,
        "data": card.data,
        "licences": card.licences,
    }
