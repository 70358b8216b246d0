"""Export a policy of `robossl transfer` with its encoder as one ONNX model: frames and state in, action out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from robossl_client.card import ACTION, EncoderCard, PolicyContract, TensorSpec
from torch import Tensor

from robossl.common.paths import StrPath
from robossl.common.suggest import suggest_name
from robossl.encoders.onnx_session import file_sha256
from robossl.errors import InputError, reason
from robossl.exporting.export import write_model
from robossl.exporting.onnx_graph import ActionModule, Precision
from robossl.exporting.triton_layout import allowed_name
from robossl.measure.subjects.subject import digest_of
from robossl.policies.document import read_result
from robossl.policies.entrants import RANDOM, random_module
from robossl.policies.heads import resolve_head
from robossl.policies.kept import place_of, read_place
from robossl.policies.networks import TunedEncoder
from robossl.policies.policy import Policy
from robossl.policies.result import TransferResult, TransferRow, TransferSettings

if TYPE_CHECKING:
    from robossl.encoders.inference import FrameEncoder, TorchEncoder


def export_policy(
    transfer: StrPath,
    *,
    row: str | None = None,
    seed: int | None = None,
    encoder: StrPath | None = None,
    out: StrPath = Path("models"),
    name: str | None = None,
    version: int | None = None,
    fixed_hw: tuple[int, int] | None = None,
    fixed_batch: int | None = None,
    outputs: tuple[str, ...] = ("pooled",),
    precision: Precision = "fp32",
    store: StrPath | None = None,
    max_batch: int = 64,
) -> Path:
    """Write a policy and its encoder as one verified ONNX model, and return the folder of the version.

    The model takes uint8 RGB frames of any size and, if the policy was trained with --proprioception, the robot's own
    state. It returns the action beside the encoder's outputs. It is checked, named, served and pinned as an encoder.

    Args:
        transfer: The folder of a finished `robossl transfer`.
        row: Name of the encoder in its table; not needed if there is one encoder.
        seed: Seed of the policy; by default the first.
        encoder: The run or encoder folder, if it is no longer where `robossl transfer` found it.
        out: The model repository.
        name: Name of the model; by default the names of encoder and environment.
        version: An unused version number; by default the next number.
        fixed_hw: The only frame height and width, for runtimes without antialiased resize (TensorRT); default: any.
        fixed_batch: The only batch size, for CUDA graphs and TensorRT; default: any.
        outputs: Outputs of the encoder that the model has beside the action: pooled, cls, dense, keypoints.
        precision: fp16 runs the backbone in half precision.
        store: A store (data set) on whose frames the outputs are compared with torch too.
        max_batch: The largest batch that Triton may send.

    Raises:
        InputError: there is no such policy, its encoder is not at hand or has changed, or it sees several frames.
        ParityError: an output differs too much from torch.
        ResourceError: the files cannot be written.

    Example:
        >>> import robossl
        >>> robossl.export_policy("transfer/mine", row="mine", seed=0, out="models")  # doctest: +SKIP
        PosixPath('models/mine-Reach-v0/1')
    """
    result = read_result(Path(transfer))
    settings = result.settings
    if settings.stack > 1:
        raise InputError(
            f"the policies in {transfer} see {settings.stack} frames at once, and a served request holds one moment; "
            "measure with --stack 1 to export"
        )
    found = _choose_row(result, row, transfer)
    seeds = range(settings.seed, settings.seed + result.seeds)
    seed = settings.seed if seed is None else seed
    if seed not in seeds:
        raise InputError(f"{transfer} has policies of the seeds {', '.join(map(str, seeds))}, got {seed}")
    place = place_of(_folder_of(Path(transfer)), found.name, found.digest, seed)
    opened = _open_encoder(found, encoder)
    policy = _load_policy(place, opened, settings)
    module = policy.vision.encoder if isinstance(policy.vision, TunedEncoder) else opened.encoder
    card = _card_of(opened.card, policy, found, settings, place, seed=seed)
    return write_model(
        module,
        replace(card, name=allowed_name(f"{found.name}-{settings.env.rpartition('/')[2]}")),
        out=Path(out),
        name=name,
        version=version,
        fixed_hw=fixed_hw,
        fixed_batch=fixed_batch,
        outputs=(*outputs, ACTION),
        precision=precision,
        store=store,
        max_batch=max_batch,
        policy=PolicyTail(policy, settings.head),
    )


class PolicyTail(ActionModule):
    """A trained policy without the network that makes its features."""

    def __init__(self, policy: Policy, head: str) -> None:
        super().__init__()
        policy.vision = None
        self.policy = policy
        self.reads = resolve_head(head).reads
        self.state_dim = policy.vector.mean.numel()

    def forward(self, features: Float[Tensor, "b ..."], state: Float[Tensor, "b v"] | None) -> Float[Tensor, "b a"]:
        """Return actions."""
        vectors = features.new_zeros((features.shape[0], 0)) if state is None else state
        return self.policy.act(features, vectors)


def _folder_of(transfer: Path) -> Path:
    return transfer if transfer.is_dir() else transfer.parent


def _choose_row(result: TransferResult, row: str | None, transfer: StrPath) -> TransferRow:
    encoders = {each.name: each for each in result.rows if each.kind == "encoder"}
    if row is None and len(encoders) > 1:
        raise InputError(f"{transfer} has policies with {', '.join(encoders)}; name one with --row")
    row = next(iter(encoders)) if row is None else row
    if row in encoders:
        return encoders[row]
    if any(each.name == row for each in result.rows):
        raise InputError(f"{row} is a control, and only policies with an encoder are exported: {', '.join(encoders)}")
    raise InputError(suggest_name(f"row of {transfer}", row, encoders))


def _open_encoder(row: TransferRow, encoder: StrPath | None) -> TorchEncoder:
    """Open the encoder of a row in torch, and check that its weights are those that the policy was trained with."""
    from robossl.encoders.cards import torch_card
    from robossl.encoders.inference import TorchEncoder, load_encoder

    source = row.source if encoder is None else os.fspath(encoder)
    opened: FrameEncoder | None = None
    try:
        if source.startswith(RANDOM):
            module = random_module(source)
            opened = TorchEncoder(module, torch_card(module, name=source.removeprefix(RANDOM), extra={}))
        elif not source.startswith("grpc://"):
            opened = load_encoder(source)
    except InputError as error:
        raise InputError(f"{row.name}: {error}; if its encoder was moved, name the place with --encoder") from error
    if not isinstance(opened, TorchEncoder):
        raise InputError(
            f"{row.name} was measured as {source}, whose weights are not at hand; measure its run or encoder folder to "
            "export a policy"
        )
    if opened.card.digest != row.sha256:
        raise InputError(
            f"{source} has the weights {opened.card.digest[:12]}, and the policies of {row.name} were trained with "
            f"{row.sha256[:12]}; name the encoder with --encoder, or measure again"
        )
    return opened


def _load_policy(place: Path, opened: TorchEncoder, settings: TransferSettings) -> Policy:
    """Return the policy that `robossl transfer` kept, with its weights."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_model

    path, reads = place / "policy.safetensors", resolve_head(settings.head).reads
    try:
        with safe_open(path, framework="pt") as file:
            vector_dim, action_dim = (file.get_slice(each).get_shape()[0] for each in ("vector.mean", "body.4.bias"))
        vision = None if settings.tune == "frozen" else TunedEncoder(opened.encoder, settings.tune, reads)
        shape = tuple(map(int, opened.card.outputs[reads].shape[1:]))
        policy = Policy(settings.head, vision, shape, vector_dim=vector_dim, stack=1, action_dim=action_dim)
        load_model(policy, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} is not the policy ({reason(error)}); measure it again") from error
    return policy.eval().requires_grad_(False)


def _card_of(
    card: EncoderCard, policy: Policy, row: TransferRow, settings: TransferSettings, place: Path, *, seed: int
) -> EncoderCard:
    """Return the encoder's card with the policy's contract, the action among its outputs, and a digest of both."""
    about: dict[str, Any] = read_place(place) or {}
    mean, std = policy.vector.mean.tolist(), policy.vector.std.tolist()
    clean = row.scores[0].by_seed[seed - settings.seed]
    contract = PolicyContract(
        state=TensorSpec("float32", ("batch", len(mean))) if mean else None,
        state_names=tuple(about.get("state_names", ())) if mean else (),
        state_mean=tuple(mean),
        state_std=tuple(std),
        action_low=tuple(about.get("action_low", ())),
        action_high=tuple(about.get("action_high", ())),
        env=settings.env,
        image_size=settings.image_size,
        demos=settings.demos,
        seed=seed,
        head=settings.head,
        tune=settings.tune,
        encoder=card.name,
        encoder_digest=card.digest,
        successes=sum(clean),
        trials=len(clean),
    )
    action = TensorSpec("float32", ("batch", len(policy.body[-1].state_dict()["bias"])))
    return replace(
        card,
        digest=digest_of(card.digest, file_sha256(place / "policy.safetensors")),
        outputs={**card.outputs, ACTION: action},
        policy=contract,
    )
