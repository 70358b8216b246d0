"""EncoderCard: the description of an encoder (identity, input, outputs) on which training, serving and probing rely.

This module needs only the standard library of Python 3.10 or later, so that robots can read cards.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = "robossl.card/1"
POLICY_SCHEMA = (
    "robossl.policy_card/1"  # schema of the cards of policies; clients that know no policies refuse it by name
)
ACTION, STATE = "action", "state"  # names of a policy's output and of its second input


class CardError(ValueError):
    """A card is missing or invalid; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Type and shape of one tensor. Variable dimensions have a name, as in ("batch", "height", "width", 3)."""

    dtype: str  # name of the type in numpy
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class InputContract:
    """The frames that an encoder takes, and how it preprocesses them."""

    tensor: TensorSpec  # RGB in 0..255, channels last
    input_hw: tuple[int, int]  # height and width after the encoder has resized the whole frame (antialiased, bilinear)
    mean: tuple[float, ...]  # subtracted from RGB (scaled to 0..1); one number per channel
    std: tuple[float, ...]  # divides RGB after `mean` is subtracted; one number per channel
    fixed_hw: tuple[int, int] | None  # the only accepted frame size; None for any
    name: str = "frames"
    colour: str = "RGB"
    resize: str = "antialiased bilinear, whole frame"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one output of the exported graph agrees with the torch model, over all compared frames."""

    max_abs_difference: float
    centred_cosine: float  # lowest cosine of all frames, computed after the mean over frames is subtracted


@dataclass(frozen=True, slots=True)
class Parity:
    """A comparison of the exported graph with the torch model in fp32, made when the encoder was exported."""

    provider: str  # execution provider of onnxruntime
    batches: tuple[int, ...]
    frame_hw: tuple[tuple[int, int], ...]
    outputs: dict[str, Agreement]
    min_centred_cosine: float  # lowest centred cosine that passes the comparison
    max_relative_difference: float  # limit of max_abs_difference / largest magnitude of the output


@dataclass(frozen=True, slots=True)
class PolicyContract:
    """The policy that a model has behind its encoder: the state it takes, what its action means, how it was trained.

    The model returns the action as the output "action" (batch, a); -1 is the lowest and 1 the highest that the
    environment allows, and values beyond must be clipped.
    """

    state: TensorSpec | None  # the input "state": the robot's own state; None if the policy sees frames alone
    state_names: tuple[str, ...]  # names of the state's dimensions; empty if not known
    state_mean: tuple[float, ...]  # mean of the state in the demonstrations
    state_std: tuple[float, ...]  # standard deviation of the state in the demonstrations
    action_low: tuple[float, ...]  # what the action -1 stands for, in the environment's units; empty if not known
    action_high: tuple[float, ...]  # what the action 1 stands for
    env: str  # id of the environment in which the policy was trained and rolled out
    image_size: int  # shorter side of the frames that it was trained on
    demos: int  # number of demonstrations
    seed: int
    head: str  # how the policy reads the features
    tune: str  # "frozen", or which part of the encoder was trained with the policy
    encoder: str  # name of the encoder
    encoder_digest: str  # sha256 of the encoder's weights before they were trained with the policy
    successes: int  # episodes with a success, out of `trials` rollouts in new clean scenes
    trials: int


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """Identity, provenance, input, outputs and measurements of one encoder, and of the policy behind it if any."""

    name: str
    version: int  # version number in the model repository; 0 if not exported
    digest: str  # sha256 of the weights; encoders with equal digests give equal embeddings
    backbone: str
    input: InputContract
    outputs: dict[str, TensorSpec]
    created_by: str  # package that made the card, and its version
    model_sha256: str | None = None  # sha256 of model.onnx; None if the encoder runs in torch
    precision: str = "fp32"
    method: str | None = None  # pretraining method; None if not pretrained by robossl
    step: int | None = None  # number of training steps
    config_hash: str | None = None
    data: tuple[str, ...] = ()  # content hashes of the stores (data sets) that the encoder was trained on
    licences: tuple[str, ...] = ()  # licences of the stores in `data` and of those of its teachers, sorted
    warnings: tuple[str, ...] = ()  # what users must know before they use or share the encoder
    parity: Parity | None = None
    probe: dict[str, Any] | None = None  # summary of the invariance probe
    policy: PolicyContract | None = None  # None if the model is an encoder alone

    def to_json(self) -> str:
        """Return the card as indented JSON; the field `schema` comes first."""
        values = dataclasses.asdict(self)
        if self.policy is None:  # older clients refuse cards with a field that they do not know
            del values["policy"]
        schema = SCHEMA if self.policy is None else POLICY_SCHEMA
        return json.dumps({"schema": schema, **values}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, origin: str = "card") -> EncoderCard:
        """Read a card from JSON; `origin` is the name of the text in error messages.

        Raises:
            CardError: the text is not JSON or not a card, has another schema, or has wrong fields.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise CardError(f"{origin} is not JSON ({error}); export the encoder again") from error
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema not in (SCHEMA, POLICY_SCHEMA):
            raise CardError(
                f"{origin} has schema {schema!r}, this version reads {SCHEMA!r} and {POLICY_SCHEMA!r}; "
                "install the robossl-client of the server's version, or export the encoder again"
            )
        try:
            return _card({key: value for key, value in values.items() if key != "schema"})
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise CardError(f"{origin} is not a valid {schema} card: {reason}; export the encoder again") from error

    def write(self, path: Path) -> None:
        """Write the card atomically, so that a reader sees either the old file or the new file, never a part."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with aside.open("w", encoding="utf-8") as file:
            file.write(self.to_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)

    @classmethod
    def read(cls, path: Path) -> EncoderCard:
        """Read a card file.

        Raises:
            CardError: the file cannot be read, or `from_json` refuses its text.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise CardError(f"cannot read the card {path} ({why}); pass an exported model folder") from error
        return cls.from_json(text, origin=str(path))


def licence_warnings(licences: Iterable[str]) -> tuple[str, ...]:
    """Return a warning for each non-commercial or unknown licence.

    >>> licence_warnings(["CC-BY-4.0", "CC-BY-NC-4.0", "unknown"])
    ('data under CC-BY-NC-4.0: not for commercial use', 'data of unknown licence: ask before use')
    """
    out = []
    for licence in sorted(set(licences)):
        if re.search(r"(?<![a-z])nc(?![a-z])|non-?commercial", licence, re.IGNORECASE):
            out.append(f"data under {licence}: not for commercial use")
        elif licence.strip().lower() in {"", "unknown", "none", "other"}:
            out.append("data of unknown licence: ask before use")
    return tuple(out)


def _card(values: Mapping[str, Any]) -> EncoderCard:
    parity, policy = values.get("parity"), values.get("policy")
    fields = {
        **values,
        "input": _input(values["input"]),
        "outputs": {name: _spec(spec) for name, spec in values["outputs"].items()},
        "parity": None if parity is None else _parity(parity),
        "policy": None if policy is None else _policy(policy),
        **{key: tuple(values.get(key, ())) for key in ("data", "licences", "warnings")},
    }
    card = EncoderCard(**fields)
    for name in ("name", "digest", "backbone", "created_by", "precision"):
        if not isinstance(getattr(card, name), str):
            raise ValueError(f"{name} must be a string, got {getattr(card, name)!r}")
    if not isinstance(card.version, int):
        raise ValueError(f"version must be an integer, got {card.version!r}")
    return card


def _input(values: Mapping[str, Any]) -> InputContract:
    pairs = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return InputContract(**{**values, **pairs, "tensor": _spec(values["tensor"])})


def _spec(values: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(dtype=values["dtype"], shape=tuple(values["shape"]))


def _policy(values: Mapping[str, Any]) -> PolicyContract:
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    state = values["state"]
    return PolicyContract(**{**values, **lists, "state": None if state is None else _spec(state)})


def _parity(values: Mapping[str, Any]) -> Parity:
    fields = {
        **values,
        "batches": tuple(values["batches"]),
        "frame_hw": tuple(tuple(hw) for hw in values["frame_hw"]),
        "outputs": {name: Agreement(**figures) for name, figures in values["outputs"].items()},
    }
    return Parity(**fields)
