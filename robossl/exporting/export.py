"""Export an encoder to models/NAME/VERSION/model.onnx with its card (description), and compare outputs with torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from jaxtyping import UInt8
from numpy import ndarray
from robossl_client.card import ACTION, EncoderCard, TensorSpec

from robossl.common.checks import check_range
from robossl.common.paths import StrPath
from robossl.encoders.cards import open_encoder, torch_card
from robossl.encoders.encoder import Encoder
from robossl.encoders.find import find_encoder, find_model
from robossl.encoders.inference import OnnxEncoder, TorchEncoder, choose_outputs
from robossl.encoders.onnx_session import DIGEST_KEY, check_model_file, file_sha256, read_card
from robossl.encoders.run_session import fixed_batch_of, input_specs
from robossl.errors import InputError, reason
from robossl.exporting import triton_layout
from robossl.exporting.onnx_graph import ActionModule, Precision, to_onnx
from robossl.exporting.parity import BATCHES, GATES, FeatureFn, check_parity, frame_sizes, natural_frames, sample_states


def export(
    run: StrPath,
    *,
    out: StrPath = Path("models"),
    name: str | None = None,
    version: int | None = None,
    fixed_hw: tuple[int, int] | None = None,
    fixed_batch: int | None = None,
    outputs: tuple[str, ...] = (),
    precision: Precision = "fp32",
    store: StrPath | None = None,
    max_batch: int = 64,
) -> Path:
    """Write a verified ONNX model, its card (description) and Triton's configuration; return the folder of the version.

    The model takes uint8 RGB frames of any size, because resize and normalisation are in the graph. Its outputs are
    compared with torch, and a graph that differs is refused. int8 is not offered, because this comparison would not
    show how much int8 harms the features. Only `robossl probe` would show this.

    Args:
        run: A run folder, or an encoder folder.
        out: The model repository.
        name: Name of the model; by default the name of the run.
        version: An unused version number; by default the next number.
        fixed_hw: The only frame height and width, for runtimes without antialiased resize (TensorRT); default: any.
        fixed_batch: The only batch size, for CUDA graphs and the shortest TensorRT build; default: any. RoboSSL's
            server and `load_encoder` fill a smaller batch up; Triton takes this size only.
        outputs: Which outputs the model has: pooled, cls, dense, keypoints; by default all that the encoder has.
        precision: fp16 runs the backbone in half precision.
        store: A store (data set) on whose frames the outputs are compared too.
        max_batch: The largest batch that Triton may send.

    Raises:
        InputError: there is no encoder, or an option does not fit the encoder.
        ParityError: an output differs too much from torch.
        ResourceError: the files cannot be written.

    Example:
        >>> import robossl
        >>> robossl.export("stores/clips")
        Traceback (most recent call last):
        robossl.errors.InputError: stores/clips holds no encoder; pass a run folder (RUN or RUN/encoder)
        >>> robossl.export("runs/tiny", out="models")  # doctest: +SKIP
        PosixPath('models/tiny/1')
    """
    run, out = Path(run), Path(out)
    folder = find_encoder(run)
    if folder is None:
        raise InputError(f"{run} holds no encoder; pass a run folder (RUN or RUN/encoder)")
    encoder, card = open_encoder(folder)
    return write_model(
        encoder,
        card,
        out=out,
        name=name,
        version=version,
        fixed_hw=fixed_hw,
        fixed_batch=fixed_batch,
        outputs=outputs,
        precision=precision,
        store=store,
        max_batch=max_batch,
    )


def write_model(
    encoder: Encoder,
    card: EncoderCard,
    *,
    out: Path,
    name: str | None,
    version: int | None,
    fixed_hw: tuple[int, int] | None,
    fixed_batch: int | None,
    outputs: tuple[str, ...],
    precision: Precision,
    store: StrPath | None,
    max_batch: int,
    policy: ActionModule | None = None,
) -> Path:
    """Write an encoder, and the policy behind it if there is one; see `export`.

    With a policy, the card says so, and `outputs` may name its action.
    """
    check_range(1, max_batch=max_batch, fixed_hw=fixed_hw and min(fixed_hw), fixed_batch=fixed_batch)
    name = name or card.name
    version = triton_layout.choose_version(out, name=name, version=version)
    chosen = {output: card.outputs[output] for output in choose_outputs(card, outputs)}
    batch = fixed_batch or "batch"
    frames = TensorSpec("uint8", (batch, *(fixed_hw or ("height", "width")), 3))
    card = replace(
        card,
        name=name,
        version=version,
        precision=precision,
        input=replace(card.input, fixed_hw=fixed_hw, tensor=frames),
        outputs={name: TensorSpec(spec.dtype, (batch, *spec.shape[1:])) for name, spec in chosen.items()},
    )
    if card.policy is not None and card.policy.state is not None:
        state = replace(card.policy.state, shape=(batch, *card.policy.state.shape[1:]))
        card = replace(card, policy=replace(card.policy, state=state))
    config = triton_layout.triton_config(card, max_batch=max_batch)
    triton_layout.check_config(out, name=name, config=config)
    cases = parity_cases(card, store=store)
    _announce(encoder, card, num_frames=sum(map(len, cases)))
    with triton_layout.new_version(out, name=name, version=version, config=config) as aside:
        card = _build(encoder, card, policy, aside, cases)
    _report(card, out / name / str(version))
    return out / name / str(version)


def parity_cases(card: EncoderCard, *, store: StrPath | None) -> list[UInt8[ndarray, "b h w 3"]]:
    """Return the frames on which outputs are compared with torch.

    They are synthetic frames in every batch size and frame size, and frames of the store if one is given.
    """
    fixed_hw = card.input.fixed_hw
    sizes = [fixed_hw] if fixed_hw else frame_sizes(card.input.input_hw)
    cases = [natural_frames(b, hw, seed=b) for hw in sizes for b in BATCHES]
    return cases if store is None else [*cases, *_store_frames(store, fixed_hw)]


def _store_frames(path: StrPath, fixed_hw: tuple[int, int] | None) -> list[UInt8[ndarray, "1 h w 3"]]:
    from torch.nn.functional import interpolate

    from robossl.data.store import open_store

    store = open_store(path)
    rows = np.linspace(0, store.num_frames - 1, num=min(8, store.num_frames)).astype(int)
    pixels = [frame[None] for frame in store.decode(rows)]
    if fixed_hw:
        pixels = [interpolate(frame, fixed_hw, mode="bilinear", antialias=True) for frame in pixels]
    return [frame.permute(0, 2, 3, 1).contiguous().numpy() for frame in pixels]


def _build(
    encoder: Encoder, card: EncoderCard, policy: ActionModule | None, folder: Path, cases: Sequence[ndarray]
) -> EncoderCard:
    """Write model and card, open them again, compare the outputs with torch, and return the card with the result."""
    model = to_onnx(
        encoder,
        outputs=tuple(card.outputs),
        precision="fp16" if card.precision == "fp16" else "fp32",
        fixed_hw=card.input.fixed_hw,
        fixed_batch=fixed_batch_of(card),
        policy=policy,
        metadata={DIGEST_KEY: card.digest, "robossl.name": card.name, "robossl.common.version": str(card.version)},
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    card = replace(card, model_sha256=file_sha256(folder / "model.onnx"))
    card.write(folder / "card.json")
    verify_export(folder)
    exported = OnnxEncoder(folder, outputs=tuple(card.outputs))
    parity = check_parity(
        _reference(encoder, card, policy),
        lambda frames: exported(frames, *sample_states(card, len(frames))),
        cases,
        gates=GATES[card.precision],
        provider=exported.provider,
    )
    card = replace(card, parity=parity)
    card.write(folder / "card.json")
    return card


def _reference(encoder: Encoder, card: EncoderCard, policy: ActionModule | None) -> FeatureFn:
    """Return the function from frames to the outputs of torch; the states are those of `sample_states`."""
    if policy is None:
        return TorchEncoder(encoder, card)
    features = tuple(name for name in card.outputs if name != ACTION)
    encode = TorchEncoder(encoder, torch_card(encoder, name=card.name, extra={}), outputs=(*features, policy.reads))

    def run(frames: ndarray) -> dict[str, ndarray]:
        found = encode(frames)
        with torch.inference_mode():
            state = next(map(torch.from_numpy, sample_states(card, len(frames))), None)
            action = policy.eval()(torch.from_numpy(found[policy.reads]), state)
        return {name: found[name] for name in features} | {ACTION: action.numpy()}

    return run


def verify_export(model_dir: Path) -> EncoderCard:
    """Check that an export is complete and that graph and card belong together; return the card.

    Raises:
        InputError: a file is missing, is damaged or belongs to another export, or graph and card differ.
    """
    path = find_model(model_dir)
    card = read_card(path.with_name("card.json"))
    check_model_file(path, card)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # errors of protobuf and onnx share no base class
        raise InputError(f"{path} is not a valid ONNX model ({reason(error)}); export it again") from error
    digest = next((entry.value for entry in model.metadata_props if entry.key == DIGEST_KEY), "(none)")
    if digest != card.digest:
        raise InputError(
            f"{path} holds the weights {digest[:12]} and its card.json is of {card.digest[:12]}: "
            "the card of another encoder; export it again"
        )
    wanted = {**input_specs(card), **card.outputs}
    found = {each.name: _spec(each) for each in (*model.graph.input, *model.graph.output)}
    if found != wanted:
        raise InputError(f"{path} has the tensors {found}, its card.json says {wanted}; export it again")
    return card


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(dtype, tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim))


def _announce(encoder: Encoder, card: EncoderCard, *, num_frames: int) -> None:
    size_mib = sum(p.numel() for p in encoder.parameters()) * (2 if card.precision == "fp16" else 4) / 2**20
    print(
        f"export {card.name} version {card.version}: {card.backbone} at {_join(card.input.input_hw)}, "
        f"{card.precision}, about {size_mib:.0f} MiB and a minute; compared with torch on {num_frames} frames",
        flush=True,
    )


def _report(card: EncoderCard, folder: Path) -> None:
    assert card.parity is not None
    for name, figures in card.parity.outputs.items():
        print(
            f"  {name:9} {_join(card.outputs[name].shape[1:]):>9}  max abs difference "
            f"{figures.max_abs_difference:.1e}, centred cosine {figures.centred_cosine:.7f}"
        )
    for warning in card.warnings:
        print(f"  warning: {warning}")
    print(f"wrote {folder} (weights {card.digest[:12]})", flush=True)


def _join(sizes: Sequence[int | str]) -> str:
    return "x".join(map(str, sizes))
