"""Frame encoders: functions from uint8 frames to named features, with one interface for torch, onnxruntime and gRPC."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from robossl_client.card import ACTION, EncoderCard
from robossl_client.states import as_state, state_problem

from robossl.common.checks import check_range
from robossl.common.paths import StrPath
from robossl.common.suggest import suggest_name
from robossl.encoders.find import find_encoder, find_model
from robossl.encoders.onnx_session import GPU_DEFAULTS, check_model_file, open_session, read_card
from robossl.encoders.providers import GpuOptions, Provider
from robossl.encoders.run_session import fixed_batch_of, session_runner
from robossl.errors import InputError

if TYPE_CHECKING:
    from robossl.encoders.encoder import Encoder, EncoderConfig


class FrameEncoder(Protocol):
    """A function from frames to features, with a card (description) that identifies the encoder.

    Attributes:
        card: Name, backbone, weights digest, input format, output shapes, provenance and licences.

    Example:
        >>> import robossl
        >>> def size(encoder: robossl.FrameEncoder) -> tuple[int | str, ...]:
        ...     return encoder.card.outputs["pooled"].shape
        >>> size(robossl.load_encoder("runs/tiny"))
        ('batch', 96)
    """

    card: EncoderCard

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Return float32 features (b, ...) by output name: pooled, cls if there is a class token, dense, keypoints."""
        ...


class TorchEncoder:
    """A frame encoder in torch; a call runs its module in eval mode.

    Args:
        encoder: The module; it is moved to the device.
        card: The card (description) of the encoder.
        device: cpu, cuda or cuda:N.
        outputs: Names of the outputs to return; by default all outputs in the card.
        batch_size: Frames that go through the encoder together.
    """

    def __init__(
        self,
        encoder: Encoder,
        card: EncoderCard,
        device: str = "cpu",
        *,
        outputs: Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> None:
        check_device(device)
        self.card = card
        self.encoder = encoder.to(device)
        self._device = device
        self._outputs = choose_outputs(card, outputs)
        self._batch_size = batch_size

    def __repr__(self) -> str:
        return f"TorchEncoder({describe(self.card, self._outputs)})"

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Return features of frames; see `FrameEncoder`."""
        import torch

        from robossl.encoders.encoder import named_outputs

        def run(part: ndarray, at: int) -> list[ndarray]:
            pixels = self.encoder.preprocess(torch.from_numpy(part).to(self._device))
            named = named_outputs(self.encoder(pixels))
            return [named[name].cpu().numpy() for name in self._outputs]

        was_training = self.encoder.training
        self.encoder.eval()
        try:
            with torch.inference_mode():
                out = _in_batches(run, frames, self._batch_size)
        finally:
            self.encoder.train(was_training)
        return dict(zip(self._outputs, out, strict=True))


class OnnxEncoder:
    """A frame encoder in onnxruntime. The model file must match its card (the description in card.json).

    Args:
        path: A version folder or its model.onnx.
        provider: cpu, cuda or tensorrt.
        threads: Number of threads in a call; by default one for each CPU that this process may use.
        outputs: Names of the outputs to return; by default all outputs in the card but an action.
        batch_size: Frames that go through the model together.
        gpu: How a GPU runs the model.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
        outputs: Sequence[str] | None = None,
        batch_size: int = 64,
        gpu: GpuOptions = GPU_DEFAULTS,
    ) -> None:
        model = path / "model.onnx" if path.is_dir() else path
        self.card = read_card(model.with_name("card.json"))
        check_model_file(model, self.card)
        self.provider = provider
        self._batch_size = fixed_batch_of(self.card) or batch_size
        session = open_session(
            model, provider=provider, threads=threads, gpu=gpu, card=self.card, max_batch=self._batch_size
        )
        bind_to = "cuda" if gpu.cuda_graph and provider != "cpu" else None
        self._run = session_runner(session, self.card, bind_to=bind_to)
        self._outputs = choose_outputs(self.card, outputs)

    def __repr__(self) -> str:
        return f"OnnxEncoder({describe(self.card, self._outputs)})"

    def __call__(
        self, frames: UInt8[ndarray, "b h w 3"], state: Float32[ndarray, "b v"] | None = None
    ) -> dict[str, ndarray]:
        """Return features of frames, and the action if it was chosen; see `FrameEncoder`. Only an action needs a state.

        Raises:
            InputError: the model does not take these frames or this state.
        """
        check_array(frames)
        state = checked_state(self.card, state, num_frames=len(frames), outputs=self._outputs)
        fixed_hw = self.card.input.fixed_hw
        if fixed_hw is not None and frames.shape[1:3] != fixed_hw:
            raise InputError(
                f"{self.card.name} takes frames of {fixed_hw[0]}x{fixed_hw[1]} only, got {frames.shape}; "
                "resize them, or export without --fixed-hw"
            )

        def run(part: ndarray, at: int) -> list[ndarray]:
            part_state = None if state is None else state[at : at + len(part)]
            return list(self._run(part, self._outputs, part_state).values())

        return dict(zip(self._outputs, _in_batches(run, frames, self._batch_size), strict=True))


def load_encoder(
    source: StrPath,
    *,
    device: str = "cpu",
    outputs: Sequence[str] | None = None,
    batch_size: int = 64,
    token: StrPath | None = None,
    ca: StrPath | None = None,
) -> FrameEncoder:
    """Open an encoder as a function from frames to features.

    Args:
        source: A `Run` or its folder, an encoder folder, an exported model folder (its newest version), a model.onnx
            with its card, `grpc://HOST:PORT/MODEL` for a model on a server, `timm:NAME` (`timm:NAME@FILE` reads the
            weights from a file), or `pip:NAME` (weights in a package, docs/starting_points.md).
        device: cpu or cuda; encoders in torch also take cuda:N. A server ignores this and uses its own device.
        outputs: Names of the outputs to return: pooled (d), cls (d), dense (c, h, w), keypoints (c, 2). By default all
            that the encoder has. `load_policy` returns actions.
        batch_size: Frames that go through the encoder together.
        token: File with the token of a server.
        ca: PEM file of the authority that signed the certificate of a server. None turns encryption off.

    Returns:
        A function that takes uint8 RGB frames (b, h, w, 3) of any size and returns a dict of float32 arrays (b, ...) by
        output name. Its attribute `card` says which encoder it is.

    Raises:
        InputError: there is no such encoder, output or device, or a file does not match its card.
        ResourceError: a server does not answer, or weights cannot be downloaded.

    Example:
        >>> import numpy as np
        >>> import robossl
        >>> encoder = robossl.load_encoder("runs/tiny", outputs=["pooled"])
        >>> encoder
        TorchEncoder(tiny: test_resnet, fp32; pooled 96)
        >>> encoder(np.zeros((2, 180, 320, 3), np.uint8))["pooled"].shape
        (2, 96)
    """
    check_range(1, batch_size=batch_size)
    text = os.fspath(source)
    if (token or ca) and not text.startswith("grpc://"):
        raise InputError(f"token and ca are for a server (grpc://HOST:PORT/MODEL), not for {text}; leave them out")
    if text.startswith("grpc://"):
        from robossl.encoders.served_encoder import ServedEncoder

        return ServedEncoder(text, lambda card: choose_outputs(card, outputs), token=token, ca=ca)
    if text.startswith(("timm:", "pip:")):
        from robossl.encoders.timm_encoder import open_pip, open_timm

        encoder, card = open_pip(text) if text.startswith("pip:") else open_timm(text)
        return TorchEncoder(encoder, card, device, outputs=outputs, batch_size=batch_size)
    path = Path(text)
    if folder := find_encoder(path):
        from robossl.encoders.cards import open_encoder

        encoder, card = open_encoder(folder)
        return TorchEncoder(encoder, card, device, outputs=outputs, batch_size=batch_size)
    model = find_model(path)
    if device not in ("cpu", "cuda"):
        raise InputError(f"an exported model runs on cpu or cuda, got the device {device!r}")
    provider: Provider = "cuda" if device == "cuda" else "cpu"
    return OnnxEncoder(model, provider=provider, outputs=outputs, batch_size=batch_size)


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use on this machine.

    Raises:
        InputError: the name is not cpu, cuda or cuda:N, or there is no such GPU.
    """
    import torch

    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise InputError(f"unknown device {device!r}; choose cpu or cuda")
    if device != "cpu" and int(device[5:] or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {device}, but torch finds {torch.cuda.device_count()} GPUs here; choose cpu")


def random_encoder(config: EncoderConfig, seed: int, *, outputs: Sequence[str] | None = None) -> FrameEncoder:
    """Make an encoder with this configuration, but with random weights. Measurements use it as a baseline.

    `zero_init_last` is switched off, because with it the residual branches of a random ResNet would give zeros. The
    state of torch's random generators does not change.
    """
    import torch

    from robossl.encoders.cards import torch_card
    from robossl.encoders.encoder import build_encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(replace(config, init="random", zero_init_last=False))
    return TorchEncoder(encoder, torch_card(encoder, name=f"random-{seed}", extra={}), outputs=outputs)


def identity(card: EncoderCard) -> str:
    """Return a key of an encoder. Encoders with equal keys have equal features.

    The key is made of backbone, weights, preprocessing, graph and precision. It contains the backbone, because two
    backbones with weights of equal names and shapes may differ in padding.
    """
    return f"{card.backbone} {card.digest} {card.model_sha256} {card.precision} {card.input}"


def describe(card: EncoderCard, outputs: Sequence[str]) -> str:
    """Describe an encoder's card and the chosen outputs in a few words, as in `mine: resnet18, fp32; pooled 512`."""
    shapes = ", ".join(f"{name} {'x'.join(map(str, card.outputs[name].shape[1:]))}" for name in outputs)
    return f"{card.name}: {card.backbone}, {card.precision}; {shapes}"


def choose_outputs(card: EncoderCard, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """Return the chosen outputs, or all features in the encoder's card (description) if none is chosen.

    The action of a policy is no feature; it is returned only if it is chosen.

    Raises:
        InputError: the encoder has no such output.
    """
    for name in outputs or ():
        if name not in card.outputs:
            raise InputError(suggest_name(f"output of {card.name}", name, card.outputs))
    return tuple(outputs or (name for name in card.outputs if name != ACTION))


def checked_state(
    card: EncoderCard, state: object, *, num_frames: int, outputs: Sequence[str]
) -> Float32[ndarray, "b v"] | None:
    """Return the state for a model as float32, or None if it needs none and got none.

    Raises:
        InputError: the state is missing, is not one finite row for each frame, or the model takes none.
    """
    try:
        values: Float32[ndarray, "b v"] | None = as_state(state)
    except ValueError as error:
        raise InputError(str(error)) from error
    problem = state_problem(card, values, num_frames=num_frames, outputs=outputs)
    if problem is not None:
        raise InputError(problem)
    return values


def check_array(frames: object) -> None:
    """Refuse frames that are not one numpy array, such as a list of frames or tensors.

    Raises:
        InputError: `frames` is something else; the message says how to make an array.
    """
    if not isinstance(frames, ndarray):
        raise InputError(
            f"frames must be one numpy array, uint8 RGB (b, h, w, 3); got {type(frames).__name__}; stack arrays of "
            "equal size with np.stack(frames), tensors (3, h, w) with torch.stack(frames).permute(0, 2, 3, 1).numpy()"
        )


def _in_batches(run: Callable[[ndarray, int], list[ndarray]], frames: ndarray, batch_size: int) -> list[ndarray]:
    check_array(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        one = "; one frame is frames[None]" if frames.ndim == 3 else ""
        raise InputError(f"frames must be uint8 RGB (b, h, w, 3), b at least 1; got {frames.dtype} {frames.shape}{one}")
    frames = np.ascontiguousarray(frames)
    parts = [run(frames[start : start + batch_size], start) for start in range(0, len(frames), batch_size)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
