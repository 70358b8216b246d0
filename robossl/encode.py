"""Encode: frames in, named features out; the same call for an encoder in torch and for an exported one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from robossl_client.card import EncoderCard

from robossl.errors import InputError
from robossl.names import suggest_name
from robossl.ranges import check_range
from robossl.session import Provider, check_model_file, open_session, read_card

if TYPE_CHECKING:
    from robossl.encoder import Encoder, EncoderConfig


class Encode(Protocol):
    """Anything that turns frames into features and has a card that says which."""

    card: EncoderCard

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """float32 features of RGB frames by output name: pooled, cls where there is one, dense, keypoints."""
        ...


class TorchEncode:
    """An encoder in torch, in eval mode while it is called; `outputs` limits what is returned."""

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

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Features of frames; see `Encode`."""
        import torch

        from robossl.encoder import named_outputs

        def run(part: ndarray) -> list[ndarray]:
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


class OnnxEncode:
    """An exported encoder in onnxruntime, after a check that the model file is the one its card describes."""

    def __init__(
        self,
        path: Path,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
        outputs: Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> None:
        model = path / "model.onnx" if path.is_dir() else path
        self.card = read_card(model.with_name("card.json"))
        check_model_file(model, self.card)
        self.provider = provider
        self._session = open_session(model, provider=provider, threads=threads)
        self._outputs = choose_outputs(self.card, outputs)
        self._batch_size = batch_size

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Features of frames; see `Encode`."""
        fixed_hw = self.card.input.fixed_hw
        if fixed_hw is not None and frames.shape[1:3] != fixed_hw:
            raise InputError(
                f"{self.card.name} takes frames of {fixed_hw[0]}x{fixed_hw[1]} only, got {frames.shape}; "
                "resize them, or export without --fixed-hw"
            )

        def run(part: ndarray) -> list[ndarray]:
            outputs: list[ndarray] = self._session.run(list(self._outputs), {self.card.input.name: part})
            return outputs

        return dict(zip(self._outputs, _in_batches(run, frames, self._batch_size), strict=True))


def load_encode(
    source: str | Path, *, device: str = "cpu", outputs: Sequence[str] | None = None, batch_size: int = 64
) -> Encode:
    """Open a run folder, an encoder folder, an exported model folder (its newest version) or a model.onnx.

    `device` is cpu or cuda, or cuda:N in torch.

    Raises:
        InputError: nothing of these, a file that is not the one its card or description says, no such device.
    """
    check_range(1, batch_size=batch_size)
    path = Path(source)
    if folder := find_encoder(path):
        from robossl.cards import open_encoder

        encoder, card = open_encoder(folder)
        return TorchEncode(encoder, card, device, outputs=outputs, batch_size=batch_size)
    model = find_model(path)
    if device not in ("cpu", "cuda"):
        raise InputError(f"an exported model runs on cpu or cuda, got the device {device!r}")
    provider: Provider = "cuda" if device == "cuda" else "cpu"
    return OnnxEncode(model, provider=provider, outputs=outputs, batch_size=batch_size)


def check_device(device: str) -> None:
    """Refuse a device that torch cannot run on here.

    Raises:
        InputError: another name than cpu, cuda or cuda:N, or no such GPU.
    """
    import torch

    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise InputError(f"unknown device {device!r}; choose cpu or cuda")
    if device != "cpu" and int(device[5:] or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {device}, but torch finds {torch.cuda.device_count()} GPUs here; choose cpu")


def random_encode(config: EncoderConfig, seed: int, *, outputs: Sequence[str] | None = None) -> Encode:
    """An encoder of the same shape at random init, the reference that every figure stands beside.

    Its residual branches are alive: with `zero_init_last` a random ResNet would be a shallow net.
    Torch's generators are left as they were.
    """
    import torch

    from robossl.cards import torch_card
    from robossl.encoder import build_encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(replace(config, init="random", zero_init_last=False))
    return TorchEncode(encoder, torch_card(encoder, name=f"random-{seed}", extra={}), outputs=outputs)


def identity(card: EncoderCard) -> str:
    """Tells apart backbone, weights, preprocessing, exported graph and precision: one identity, the same features.

    Weights do not tell the backbone: two may have the same names and shapes, and other padding.
    """
    return f"{card.backbone} {card.digest} {card.model_sha256} {card.precision} {card.input}"


def find_encoder(path: Path) -> Path | None:
    """The encoder folder that a run folder or an encoder folder means; None when it is neither."""
    return next((folder for folder in (path / "encoder", path) if (folder / "encoder.json").is_file()), None)


def find_model(path: Path) -> Path:
    """The model file that a model.onnx, a version folder or a model folder (its newest version) means."""
    if path.suffix == ".onnx":
        return path
    versions = [each for each in path.glob("*/model.onnx") if each.parent.name.isdecimal()]
    newest = max(versions, key=lambda each: int(each.parent.name), default=path / "model.onnx")
    if not newest.is_file():
        below = next((each for each in sorted(path.glob("*")) if find_encoder(each)), None) if path.is_dir() else None
        raise InputError(
            f"{path} is no encoder; pass a run folder (RUN or RUN/encoder) or an exported model (models/NAME)"
            + (f"; did you mean {below}?" if below else "")
        )
    return newest


def choose_outputs(card: EncoderCard, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs to return, checked; all of the card's when none are named."""
    for name in outputs or ():
        if name not in card.outputs:
            raise InputError(suggest_name(f"output of {card.name}", name, card.outputs))
    return tuple(outputs or card.outputs)


def _in_batches(run: Callable[[ndarray], list[ndarray]], frames: ndarray, batch_size: int) -> list[ndarray]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        raise InputError(f"frames must be uint8 RGB (b, h, w, 3), b at least 1; got {frames.dtype} {frames.shape}")
    frames = np.ascontiguousarray(frames)
    parts = [run(frames[start : start + batch_size]) for start in range(0, len(frames), batch_size)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
