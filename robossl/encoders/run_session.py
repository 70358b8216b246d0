"""Run an onnxruntime session on frames, and a state: fill up a fixed batch, keep memory in place for CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from robossl_client.card import STATE, EncoderCard, TensorSpec

if TYPE_CHECKING:
    import onnxruntime


class RunNamed(Protocol):
    """Takes frames, names of outputs, and the state of a policy; returns outputs by name."""

    def __call__(
        self, frames: UInt8[ndarray, "b h w 3"], outputs: Sequence[str], state: Float32[ndarray, "b v"] | None = None
    ) -> dict[str, ndarray]:
        """Run the model."""
        ...


def fixed_batch_of(card: EncoderCard) -> int | None:
    """Return the only batch size that a model takes; None if it takes any."""
    size = card.input.tensor.shape[0]
    return size if isinstance(size, int) else None


def input_specs(card: EncoderCard) -> dict[str, TensorSpec]:
    """Return types and shapes of a model's inputs by name: frames, and the state of a policy that takes one."""
    state = None if card.policy is None else card.policy.state
    return {card.input.name: card.input.tensor, **({} if state is None else {STATE: state})}


def session_inputs(
    card: EncoderCard, frames: UInt8[ndarray, "b h w 3"], state: Float32[ndarray, "b v"] | None = None
) -> dict[str, ndarray]:
    """Return the inputs of a model by name. Zeros stand for a state that is not given: no feature depends on it."""
    inputs = {card.input.name: frames}
    if (spec := input_specs(card).get(STATE)) is not None:
        inputs[STATE] = empty_state(spec, len(frames)) if state is None else state
    return inputs


def empty_state(spec: TensorSpec, num_frames: int) -> Float32[ndarray, "b v"]:
    """Return the state for requests that want no action."""
    return np.zeros((num_frames, *map(int, spec.shape[1:])), np.float32)


def session_runner(session: onnxruntime.InferenceSession, card: EncoderCard, *, bind_to: str | None = None) -> RunNamed:
    """Return a function that runs at most one batch of frames (b, h, w, 3) and returns outputs (b, ...) by name.

    If the model's batch is fixed, copies of the last frame fill it up, and their outputs are left out. Whether an
    output needs a state is not checked here.

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

    def filled_up(values: ndarray) -> ndarray:
        return np.concatenate([values, np.repeat(values[-1:], batch - len(values), axis=0)])

    def run_filled_up(frames: ndarray, outputs: Sequence[str], state: ndarray | None = None) -> dict[str, ndarray]:
        count = len(frames)
        if count < batch:
            frames, state = filled_up(frames), None if state is None else filled_up(state)
        return {name: values[:count] for name, values in run(frames, outputs, state).items()}

    return run_filled_up


def _plain(session: onnxruntime.InferenceSession, card: EncoderCard) -> RunNamed:
    def run(frames: ndarray, outputs: Sequence[str], state: ndarray | None = None) -> dict[str, ndarray]:
        values: list[ndarray] = session.run(list(outputs), session_inputs(card, frames, state))
        return dict(zip(outputs, values, strict=True))

    return run


def _bound(session: onnxruntime.InferenceSession, card: EncoderCard, device: str) -> RunNamed:
    from onnxruntime import OrtValue

    number = int(session.get_provider_options()[session.get_providers()[0]].get("device_id", 0))

    def allocate(spec: TensorSpec) -> OrtValue:
        zeros = np.zeros([int(size) for size in spec.shape], spec.dtype)
        return OrtValue.ortvalue_from_numpy(zeros, device, number)

    values_in = {name: allocate(spec) for name, spec in input_specs(card).items()}
    values_out = {name: allocate(spec) for name, spec in card.outputs.items()}
    binding = session.io_binding()
    for name, value in values_in.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in values_out.items():
        binding.bind_ortvalue_output(name, value)

    def run(frames: ndarray, outputs: Sequence[str], state: ndarray | None = None) -> dict[str, ndarray]:
        for name, values in session_inputs(card, frames, state).items():
            values_in[name].update_inplace(np.ascontiguousarray(values))
        session.run_with_iobinding(binding)
        # On a CPU numpy() shows the bound memory itself, which the next run overwrites.
        return {name: values_out[name].numpy().copy() for name in outputs}

    return run
