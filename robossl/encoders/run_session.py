"""Run an onnxruntime session on frames: fill up a fixed batch, and keep memory in place for CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from robossl_client.card import EncoderCard, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

RunNamed = Callable[[ndarray, Sequence[str]], dict[str, ndarray]]  # takes frames and names of outputs


def fixed_batch_of(card: EncoderCard) -> int | None:
    """Return the only batch size that a model takes; None if it takes any."""
    size = card.input.tensor.shape[0]
    return size if isinstance(size, int) else None


def session_runner(session: onnxruntime.InferenceSession, card: EncoderCard, *, bind_to: str | None = None) -> RunNamed:
    """Return a function that runs at most one batch of frames (b, h, w, 3) and returns outputs (b, ...) by name.

    If the model's batch is fixed, copies of the last frame fill it up, and their outputs are left out.

    Args:
        session: The session of the model.
        card: The card (description) of the model.
        bind_to: Device ("cuda") on which input and outputs keep their addresses, as a CUDA graph needs. The model's
            shape must then be fixed, and one call must end before the next begins.
    """
    batch = fixed_batch_of(card)
    run = _plain(session, card) if bind_to is None else _bound(session, card, bind_to)
    if batch is None:
        return run

    def run_filled_up(frames: UInt8[ndarray, "b h w 3"], outputs: Sequence[str]) -> dict[str, ndarray]:
        count = len(frames)
        if count < batch:
            frames = np.concatenate([frames, np.repeat(frames[-1:], batch - count, axis=0)])
        return {name: values[:count] for name, values in run(frames, outputs).items()}

    return run_filled_up


def _plain(session: onnxruntime.InferenceSession, card: EncoderCard) -> RunNamed:
    def run(frames: ndarray, outputs: Sequence[str]) -> dict[str, ndarray]:
        values: list[ndarray] = session.run(list(outputs), {card.input.name: frames})
        return dict(zip(outputs, values, strict=True))

    return run


def _bound(session: onnxruntime.InferenceSession, card: EncoderCard, device: str) -> RunNamed:
    from onnxruntime import OrtValue

    number = int(session.get_provider_options()[session.get_providers()[0]].get("device_id", 0))

    def allocate(spec: TensorSpec) -> OrtValue:
        zeros = np.zeros([int(size) for size in spec.shape], spec.dtype)
        return OrtValue.ortvalue_from_numpy(zeros, device, number)

    frames_in = allocate(card.input.tensor)
    values_out = {name: allocate(spec) for name, spec in card.outputs.items()}
    binding = session.io_binding()
    binding.bind_ortvalue_input(card.input.name, frames_in)
    for name, value in values_out.items():
        binding.bind_ortvalue_output(name, value)

    def run(frames: ndarray, outputs: Sequence[str]) -> dict[str, ndarray]:
        frames_in.update_inplace(np.ascontiguousarray(frames))
        session.run_with_iobinding(binding)
        # On a CPU numpy() shows the bound memory itself, which the next run overwrites.
        return {name: values_out[name].numpy().copy() for name in outputs}

    return run
