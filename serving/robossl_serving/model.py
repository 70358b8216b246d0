"""Model: one version of an encoder; its files are checked and its run times are measured before it serves."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard
from robossl_client.wire import put_values, tensor_type

from robossl.common.checks import check_range
from robossl.common.cpus import num_cpus
from robossl.encoders.onnx_session import DIGEST_KEY, check_model_file, open_session, read_card
from robossl.encoders.providers import GpuOptions, Provider
from robossl.encoders.run_session import fixed_batch_of, input_specs, session_inputs, session_runner
from robossl.errors import InputError
from robossl.exporting.parity import GATES, FeatureFn, check_parity, natural_frames, sample_states
from robossl.exporting.triton_layout import read_config
from robossl_serving.costs import LARGER, Costs, measure_costs, measure_pixels
from robossl_serving.device import Device
from robossl_serving.executor import Executor, RunFn
from robossl_serving.scheduler import Scheduler
from robossl_serving.statistics import ModelStatistics

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_PARITY_BATCHES = (1, 3)
_DEFAULT_BATCH = 64
_LARGE = 8 * 2**20  # a run is large if its frames have at least this many bytes
_KEPT_S = 2.0  # how long onnxruntime's memory is kept after a large run, for the next large run


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How onnxruntime sessions are opened, and how many requests may wait for each session."""

    provider: Provider = "cpu"
    threads: int = 1
    gpu: GpuOptions = field(default_factory=GpuOptions)
    max_waiting: int = 64  # maximum number of waiting batch requests
    max_slots: int = 64  # maximum number of waiting control requests; each camera has at most one

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: a number is out of range.
        """
        check_range(1, 1024, threads=self.threads)
        check_range(1, max_waiting=self.max_waiting)


class Model:
    """A version of an encoder that is ready to serve."""

    def __init__(self, folder: Path, settings: SessionSettings, device: Device | None = None) -> None:
        """Open and check a version folder, and measure the run times of its encoder.

        Encoders with the same `device` take turns; None lets this encoder run at any time.

        Raises:
            RobosslError: the folder is damaged or does not match its card, or gives wrong features on this machine.
        """
        model = folder / "model.onnx"
        self.card = read_card(folder / "card.json")
        check_model_file(model, self.card)
        if (self.card.name, self.card.version) != (folder.parent.name, int(folder.name)):
            raise InputError(f"{folder} holds {self.card.name} version {self.card.version}; rename the folder to match")
        assert self.card.model_sha256 is not None
        self.artefact = self.card.model_sha256
        self.max_batch = max_batch_of(folder.parent / "config.pbtxt", self.card)
        self._settings = settings
        self._large_s: float | None = None  # time of the last large run; None if its memory was given back
        self._session = self._open_session(model)
        self._check_tensors(model)
        self._run_session = session_runner(self._session, self.card, bind_to="cuda" if self._is_bound else None)
        check_on_this_machine(model, self.card, self._run, settings)
        self.costs = self._measure()
        self.types = {name: tensor_type(spec.dtype) for name, spec in self.card.outputs.items()}
        self.reply = pb.ModelInferResponse(model_name=self.card.name, model_version=str(self.card.version))
        put_values(self.reply.parameters, {"digest": self.card.digest, "artefact": self.artefact})
        self.statistics = ModelStatistics(self.card)
        self.loaded_s = time.monotonic()
        # Time of the last request from a client that has pinned this version, that is, accepts no other.
        self.pinned_s = self.loaded_s
        self.executor = Executor(
            self._run,
            Scheduler(self.costs, max_waiting=settings.max_waiting, max_slots=settings.max_slots),
            name=f"{self.card.name}-{self.card.version}",
            on_run=self.statistics.count_run,
            device=device,
        )

    def facts(self) -> dict[str, object]:
        """Return what the log says about a loaded model: name, version, digests and speed."""
        return {
            "model": self.card.name,
            "version": self.card.version,
            "digest": self.card.digest,
            "artefact": self.artefact,
            "run_ms": round(self.costs.of(1) * 1e3, 3),
            "best_batch": self.costs.best_batch,
            "provider": self._settings.provider,
        }

    def close(self) -> threading.Thread:
        """Start a thread that runs the waiting requests and then frees the session; return the thread."""

        def close() -> None:
            self.executor.close()
            # The model is in a reference cycle, so the session would otherwise stay until the next garbage collection.
            del self._session, self._run_session

        thread = threading.Thread(target=close, name=f"close-{self.card.name}", daemon=True)
        thread.start()
        return thread

    def give_back(self) -> None:
        """Shrink onnxruntime's memory after large runs, because onnxruntime itself never does; call this regularly."""
        large_s = self._large_s
        if large_s is None or self._is_bound or time.monotonic() - large_s < _KEPT_S:
            return
        from onnxruntime import RunOptions

        self._large_s = None
        options = RunOptions()
        arenas = "cpu:0" if self._settings.provider == "cpu" else "cpu:0;gpu:0"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
        num_frames = fixed_batch_of(self.card) or 1
        frames = natural_frames(num_frames, self.card.input.fixed_hw or self.card.input.input_hw, seed=0)
        with contextlib.suppress(AttributeError):  # the model was unloaded meanwhile
            self._session.run(list(self.card.outputs), session_inputs(self.card, frames), options)

    def _open_session(self, model: Path) -> InferenceSession:
        settings = self._settings
        return open_session(
            model,
            provider=settings.provider,
            threads=settings.threads,
            gpu=settings.gpu,
            card=self.card,
            max_batch=self.max_batch,
        )

    def _run(
        self, frames: UInt8[ndarray, "b h w 3"], outputs: Sequence[str], state: Float32[ndarray, "b v"] | None = None
    ) -> dict[str, ndarray]:
        values = self._run_session(frames, outputs, state)
        if frames.nbytes >= _LARGE:
            self._large_s = time.monotonic()
        return values

    @property
    def _is_bound(self) -> bool:
        """Whether runs replay a CUDA graph, so that the memory of frames and outputs stays in place."""
        return self._settings.gpu.cuda_graph and self._settings.provider != "cpu"

    def _check_tensors(self, model: Path) -> None:
        digest = self._session.get_modelmeta().custom_metadata_map.get(DIGEST_KEY)
        if digest != self.card.digest:
            raise InputError(f"{model} holds other weights than its card.json describes; export it again")
        inputs = {each.name for each in self._session.get_inputs()}
        outputs = {each.name for each in self._session.get_outputs()}
        if inputs != input_specs(self.card).keys() or outputs != set(self.card.outputs):
            raise InputError(f"{model} has the tensors {sorted(inputs | outputs)}, unlike its card; export it again")

    def _measure(self) -> Costs:
        hw = self.card.input.fixed_hw or self.card.input.input_hw
        frames = natural_frames(1, hw, seed=0)
        outputs = tuple(self.card.outputs)
        costs = measure_costs(lambda num: self._run(np.repeat(frames, num, 0), outputs), max_batch=self.max_batch)
        if self.card.input.fixed_hw is not None:
            return costs
        larger = np.tile(frames, (1, LARGER, LARGER, 1))
        return measure_pixels(costs, lambda: self._run(larger, outputs), hw)


def check_on_this_machine(model: Path, card: EncoderCard, run: RunFn, settings: SessionSettings) -> None:
    """Check that the optimised graph on the chosen provider gives the same outputs as the unoptimised graph on the CPU.

    The export compared the graph with torch, but kernels differ between machines and providers. The tolerances are
    those of the export; if the settings ask for TF32, fp16 or bf16, they are those of an export in fp16.

    Raises:
        ParityError: the outputs differ, are not finite, or are the same for all frames.
    """
    plain = session_runner(open_session(model, threads=settings.threads, optimise=False), card)
    names = tuple(card.outputs)
    is_exact = card.precision != "fp16" and not settings.gpu.changes_numbers(settings.provider)
    gates = GATES["fp32" if is_exact else "fp16"]
    height, width = card.input.fixed_hw or card.input.input_hw
    sizes = [(height, width)] if card.input.fixed_hw else [(height, width), (height + 17, width + 40)]
    batch = fixed_batch_of(card)
    # One frame alone would seem to be a collapsed encoder, so a small fixed batch runs several times.
    batches = _PARITY_BATCHES if batch is None or batch >= max(_PARITY_BATCHES) else (batch,) * 4
    cases = [natural_frames(num, hw, seed=num + i) for hw in sizes for i, num in enumerate(batches)]

    def with_state(model: RunFn) -> FeatureFn:
        return lambda frames: model(frames, names, *sample_states(card, len(frames)))

    check_parity(with_state(plain), with_state(run), cases, gates=gates, provider=settings.provider)


def places_of(settings: SessionSettings) -> int:
    """Return how many encoders may run at the same time: one on a GPU, otherwise number of CPUs / threads per run."""
    return max(1, num_cpus() // settings.threads) if settings.provider == "cpu" else 1


def max_batch_of(config: Path, card: EncoderCard) -> int:
    """Return the largest batch of a model: what its graph fixes, or its config.pbtxt allows, or `_DEFAULT_BATCH`."""
    if (batch := fixed_batch_of(card)) is not None:
        return batch
    if not config.is_file():
        return _DEFAULT_BATCH
    return read_config(config).max_batch_size or 1  # in Triton, 0 means no batching
