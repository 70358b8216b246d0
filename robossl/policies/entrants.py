"""The entrants (rows) of a table: encoders, and controls that tell what a policy reaches without these encoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robossl.errors import InputError
from robossl.measure.subjects import Subject, check_source, open_subject, pixels_reference
from robossl.measure.subjects.references import random_subject, reference_config
from robossl.measure.subjects.subject import Backbone, digest_of
from robossl.policies.heads import resolve_head
from robossl.policies.networks import SmallConvNet, Tune, TunedEncoder, check_tune
from robossl.policies.policy import PolicyInputs

if TYPE_CHECKING:
    from robossl.encoders.encoder import Encoder, EncoderConfig

RANDOM = "random:"
STATE, OWN_STATE, PIXELS, CONVNET = "state", "proprioception", "pooled pixels", "small ConvNet"

Kind = Literal["encoder", "control"]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One row of the table.

    Args:
        name: Name of the row; no other row has it.
        kind: An encoder that the user named, or a control.
        source: What the user named; the name of a control.
        digest: Digest of the weights, and of how features are computed.
        inputs: Function from a seed to what the policies of this row get.
        trains_network: Whether its policies train a network on frames; those take fewer steps.
        sha256: Digest of the weights alone, as a probe report has it; "" for a control.
    """

    name: str
    kind: Kind
    source: str
    digest: str
    inputs: Callable[[int], PolicyInputs]
    trains_network: bool = False
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class EntrantOptions:
    """How the policies of all encoders see."""

    head: str
    tune: Tune
    proprioception: bool
    device: str
    token: Path | None = None
    ca: Path | None = None


def check_encoders(sources: Sequence[str], options: EntrantOptions) -> None:
    """Check the names of encoders and the head, without loading weights.

    Raises:
        InputError: a name is no encoder, is named twice, or cannot be fine-tuned; or the head is unknown.
    """
    if not sources:
        raise InputError(
            "no encoder to measure; name one or more with --encoders, such as runs/mine or random:resnet18"
        )
    resolve_head(options.head)
    for source, count in Counter(sources).items():
        if count > 1:
            raise InputError(f"{source} is named twice; name each encoder once")
        check_tune(options.tune, source)
        is_served = source.startswith("grpc://")
        if source.startswith(RANDOM):
            _random_config(source)
        else:
            token, ca = (options.token, options.ca) if is_served else (None, None)
            check_source(source, token=token, ca=ca)


def make_entrants(sources: Sequence[str], options: EntrantOptions, *, has_own_state: bool) -> list[Entrant]:
    """Open the encoders and make the controls; the encoders come first.

    Raises:
        InputError: an encoder cannot be opened, or lacks the output that the head reads.
        ResourceError: a server does not answer, or weights cannot be downloaded.
    """
    opened = {source: _open(source, options) for source in sources}
    names = Counter(subject.info.name for subject in opened.values())
    encoders, randoms = [], {}
    for source, subject in opened.items():
        name = subject.info.name if names[subject.info.name] == 1 else source
        encoders.append(_encoder_row(name, source, subject, options))
        if not source.startswith(RANDOM):
            config, backbone = reference_config(subject)
            randoms[config] = backbone
    taken = {row.name for row in encoders}
    controls = [_random_row(config, backbone, taken, options) for config, backbone in randoms.items()]
    return [*encoders, *controls, *_other_controls(options, has_own_state=has_own_state)]


def _open(source: str, options: EntrantOptions) -> Subject:
    reads = resolve_head(options.head).reads
    outputs: tuple[Literal["pooled", "dense"], ...] = ("pooled", "dense") if reads == "dense" else ("pooled",)
    if source.startswith(RANDOM):
        config, backbone = _random_config(source)
        subject = random_subject(config, backbone, outputs=outputs, device=options.device)
    else:
        is_served = source.startswith("grpc://")
        token, ca = (options.token, options.ca) if is_served else (None, None)
        subject = open_subject(source, device=options.device, outputs=outputs, token=token, ca=ca)
    if reads not in subject.outputs:
        raise InputError(
            f"--head {options.head} reads a feature map (dense), and {source} has none; use --head mlp, or leave it out"
        )
    return replace(subject, outputs=(reads,))


def _random_config(source: str) -> tuple[EncoderConfig, Backbone]:
    import timm

    from robossl.encoders.backbones import unknown_backbone
    from robossl.encoders.encoder import EncoderConfig

    name = source.removeprefix(RANDOM)
    if not timm.is_model(name):
        raise InputError(unknown_backbone(name))
    return EncoderConfig(name), Backbone(name, "option")


def _encoder_row(name: str, source: str, subject: Subject, options: EntrantOptions) -> Entrant:
    def inputs(seed: int) -> PolicyInputs:
        if options.tune == "frozen":
            return _frozen(subject, options)
        return _tuned(_module_of(source), options)

    digest = digest_of(subject.digest, options.tune)
    trains = options.tune != "frozen"
    return Entrant(name, "encoder", source, digest, inputs, trains_network=trains, sha256=subject.info.sha256)


def _random_row(config: EncoderConfig, backbone: Backbone, taken: set[str], options: EntrantOptions) -> Entrant:
    name = f"random {config.backbone}"
    while name in taken:
        name = f"{name}, the control"
    taken.add(name)

    def inputs(seed: int) -> PolicyInputs:
        if options.tune != "frozen":
            return _tuned(_random_module(config, seed), options)
        outputs: tuple[Literal["pooled", "dense"], ...] = (resolve_head(options.head).reads,)
        outputs = ("pooled", "dense") if outputs == ("dense",) else outputs
        subject = random_subject(config, backbone, seed=seed, outputs=outputs, device=options.device)
        return _frozen(replace(subject, outputs=(resolve_head(options.head).reads,)), options)

    digest = digest_of("random", config, options.tune)
    return Entrant(name, "control", name, digest, inputs, trains_network=options.tune != "frozen")


def _other_controls(options: EntrantOptions, *, has_own_state: bool) -> list[Entrant]:
    vector: Literal["proprioception", "none"] = "proprioception" if options.proprioception else "none"

    found = [
        Entrant(PIXELS, "control", PIXELS, PIXELS, lambda seed: PolicyInputs(vector, "mlp", pixels_reference())),
        Entrant(
            CONVNET,
            "control",
            CONVNET,
            CONVNET,
            lambda seed: PolicyInputs(vector, "mlp", trained=SmallConvNet),
            trains_network=True,
        ),
        Entrant(STATE, "control", STATE, STATE, lambda seed: PolicyInputs("state")),
    ]
    if has_own_state:
        found.append(Entrant(OWN_STATE, "control", OWN_STATE, OWN_STATE, lambda seed: PolicyInputs("proprioception")))
    return found


def _frozen(subject: Subject, options: EntrantOptions) -> PolicyInputs:
    return PolicyInputs("proprioception" if options.proprioception else "none", options.head, frozen=subject)


def _tuned(module: Encoder, options: EntrantOptions) -> PolicyInputs:
    vision = TunedEncoder(module, options.tune, resolve_head(options.head).reads)
    return PolicyInputs("proprioception" if options.proprioception else "none", options.head, trained=lambda hw: vision)


def _module_of(source: str) -> Encoder:
    from robossl.encoders.inference import TorchEncoder, load_encoder

    if source.startswith(RANDOM):
        return random_module(source)
    opened = load_encoder(source)
    if not isinstance(opened, TorchEncoder):
        raise InputError(f"{source} is an exported model, whose weights cannot be trained; use --tune frozen")
    return opened.encoder


def random_module(source: str) -> Encoder:
    """Return the encoder that `random:NAME` stands for."""
    return _random_module(_random_config(source)[0], 0)


def _random_module(config: EncoderConfig, seed: int) -> Encoder:
    from robossl.encoders.inference import TorchEncoder, random_encoder

    opened = random_encoder(config, seed)
    assert isinstance(opened, TorchEncoder)
    return opened.encoder
