"""What an evaluation compares: the encoders asked for, random init of their backbones, pooled pixels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.encode import Encode, identity, load_encode, random_encode
from robossl.encoder import EncoderConfig
from robossl.evaluate.features import Embedder, pixels_embedder
from robossl.evaluate.result import Kind
from robossl.evaluate.score import MAJORITY

if TYPE_CHECKING:
    from robossl_client.card import EncoderCard


@dataclass(frozen=True, slots=True)
class Subject:
    """One line of the table: an embedder, or several whose accuracies are averaged (seeds of random init)."""

    name: str
    kind: Kind
    embedders: tuple[Embedder, ...]
    references: tuple[str, ...] = ()
    about: tuple[dict[str, Any], ...] = ()  # identity of each encoder, for the JSON


def make_subjects(models: tuple[str, ...], *, random_seeds: int, seed: int, group_seeds: bool = False) -> list[Subject]:
    """Load the encoders and make their references; runs that differ in their seed alone are one subject when grouped.

    Raises:
        InputError: a model that cannot be loaded.
    """
    loaded = [(model, load_encode(model, outputs=("pooled",))) for model in models]
    names = [encode.card.name for _, encode in loaded]
    groups: dict[str, list[tuple[str, Encode]]] = {}
    for model, encode in loaded:
        groups.setdefault(_but_for_seed(model) if group_seeds else model, []).append((model, encode))
    encoders: list[Subject] = []
    references: dict[tuple[str, tuple[int, int]], Subject] = {}
    for members in groups.values():
        model, encode = members[0]
        card = encode.card
        random = f"random {card.backbone}"
        references[random, card.input.input_hw] = _random(random, random_config(card), random_seeds, seed)
        name = card.name if names.count(card.name) == 1 else model
        if len(members) > 1:
            name = f"{card.method} {card.backbone}, {card.step} steps, {len(members)} seeds"
        if name in {subject.name for subject in encoders}:
            name = f"{model} ({len(members)})"
        compared = (random, pixels_embedder().name, MAJORITY)
        each = tuple(embedder(other, one) for other, one in members)
        about = tuple(_about(one.card, other) for other, one in members)
        encoders.append(Subject(name, "encoder", each, compared, about))
    pixels = pixels_embedder()
    return [*encoders, *references.values(), Subject(pixels.name, "pixels", (pixels,))]


def _but_for_seed(model: str) -> str:
    """What runs have in common that differ in their seed alone; anything but a run folder is itself."""
    path = Path(model) / "config.yaml"
    if not path.is_file():
        return model
    return json.dumps(yaml.safe_load(path.read_text()) | {"seed": None}, sort_keys=True)


def embedder(name: str, encode: Encode) -> Embedder:
    """The pooled output of an encoder; its digest tells apart weights, preprocessing, exported graph and precision."""

    def pooled(frames: UInt8[ndarray, "b h w 3"]) -> Float[ndarray, "b d"]:
        return encode(frames)["pooled"]

    return Embedder(name, identity(encode.card), pooled)


def random_config(card: EncoderCard) -> EncoderConfig:
    """The backbone of a card before any training, with the same preprocessing."""
    return EncoderConfig(
        backbone=card.backbone,
        input_hw=card.input.input_hw,
        mean=(card.input.mean[0], card.input.mean[1], card.input.mean[2]),
        std=(card.input.std[0], card.input.std[1], card.input.std[2]),
    )


def _random(name: str, config: EncoderConfig, num_seeds: int, seed: int) -> Subject:
    seeds = range(seed, seed + num_seeds)
    return Subject(
        name,
        "random",
        tuple(embedder(f"{name}, seed {s}", random_encode(config, s, outputs=("pooled",))) for s in seeds),
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
