"""Open an exported model file in onnxruntime, after checking that the file matches its card (description)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robossl_client.card import STATE, CardError, EncoderCard

from robossl.common.cpus import num_cpus
from robossl.encoders.engine_cache import EnginePlace, engine_place, with_engines
from robossl.encoders.gpus import TENSORRT_LIBRARIES, find_gpus, library_versions, load_tensorrt
from robossl.encoders.providers import (
    GpuOptions,
    Provider,
    ProviderList,
    is_fixed,
    provider_list,
    shape_profile,
)
from robossl.encoders.run_session import input_specs
from robossl.errors import InputError, reason

if TYPE_CHECKING:
    import onnxruntime

DIGEST_KEY = "robossl.digest"  # key in the model's metadata; its value must equal the digest of the card

GPU_DEFAULTS = GpuOptions()


def read_card(path: Path) -> EncoderCard:
    """Read the card (description) of an exported encoder from its file.

    Raises:
        InputError: the card is missing or damaged, or its schema is not the one that this version reads.
    """
    try:
        return EncoderCard.read(path)
    except CardError as error:
        raise InputError(str(error)) from error


def check_model_file(model: Path, card: EncoderCard) -> None:
    """Check that a model file is, byte for byte, the one that its card (card.json) describes.

    Raises:
        InputError: the model is missing, truncated, damaged, or belongs to another card.
    """
    try:
        got = file_sha256(model)
    except OSError as error:
        raise InputError(f"cannot read the model {model} ({error.strerror}); export it again") from error
    if got != card.model_sha256:
        raise InputError(
            f"{model} is not the file its card.json describes (sha256 {got[:12]}, the card says "
            f"{str(card.model_sha256)[:12]}): damaged, or of another export; copy the version folder again"
        )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_session(
    model: Path,
    *,
    provider: Provider = "cpu",
    threads: int | None = None,
    optimise: bool = True,
    gpu: GpuOptions = GPU_DEFAULTS,
    card: EncoderCard | None = None,
    max_batch: int = 64,
) -> onnxruntime.InferenceSession:
    """Open a model on one provider, without falling back to another.

    On TensorRT this builds the engine, unless the cache has it: seconds to minutes.

    Args:
        model: The model file.
        provider: The provider (hardware and runtime) that runs the model.
        threads: Threads of one call; by default one for each CPU that this process may use.
        optimise: Whether onnxruntime optimises the graph. If False, it runs the nodes as exported, which gives
            reference outputs for the optimised graph.
        gpu: How a GPU runs the model.
        card: The card (description) of the model. TensorRT needs it, CUDA needs it for `gpu.cuda_graph`.
        max_batch: The largest batch that TensorRT will get.

    Raises:
        InputError: the provider is not available, onnxruntime cannot run the file, or the options do not fit the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or num_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # log errors only
    # Threads must not spin while they wait, because that doubles the CPU time on a shared host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    _load_libraries(provider, gpu)

    def create(providers: ProviderList) -> onnxruntime.InferenceSession:
        return _create(model, options, provider, providers)

    if provider != "tensorrt":
        return create(session_providers(provider, gpu, card, max_batch=max_batch))
    place = engines_of(gpu, card, max_batch=max_batch)
    return with_engines(
        place, lambda folder: create(session_providers(provider, gpu, card, max_batch=max_batch, engines=folder))
    )


def session_providers(
    provider: Provider, gpu: GpuOptions, card: EncoderCard | None, *, max_batch: int, engines: Path | None = None
) -> ProviderList:
    """Return the providers and options for a model; see `provider_list`.

    Raises:
        InputError: the options do not fit the model.
    """
    if gpu.cuda_graph and provider != "cpu" and (card is None or not is_fixed(card.input.tensor.shape)):
        raise InputError(
            "cuda_graph replays kernels for one shape, and this model takes several; export it with --fixed-hw H W "
            "--fixed-batch 1, or leave out --gpu.cuda-graph"
        )
    if provider == "cuda" and gpu.precision != "fp32":
        raise InputError(
            f"precision {gpu.precision} is an option of TensorRT; for CUDA export the model with --precision fp16"
        )
    if provider != "tensorrt":
        return provider_list(provider, gpu)
    if card is None:
        raise InputError("TensorRT needs the card of the model; pass an exported model, or choose cpu or cuda")
    if card.precision == "fp16" and gpu.precision == "fp32":
        gpu = replace(gpu, precision="fp16")  # the graph itself is in fp16
    if STATE in input_specs(card) and not is_fixed(card.input.tensor.shape):
        raise InputError(
            f"TensorRT runs a policy with a state in one shape only; export {card.name} with --fixed-hw H W "
            "--fixed-batch 1, or choose the provider cuda"
        )
    profile = shape_profile(card.input, best_batch=gpu.best_batch, max_batch=max_batch)
    return provider_list(provider, gpu, profile=profile, engines=engines)


def engines_of(gpu: GpuOptions, card: EncoderCard | None, *, max_batch: int) -> EnginePlace:
    """Return where the cache keeps TensorRT's engines of a model.

    Raises:
        InputError: the options do not fit the model.
    """
    _, options = session_providers("tensorrt", gpu, card, max_batch=max_batch, engines=Path())[0]
    assert card is not None
    gpus = find_gpus()
    return engine_place(
        gpu.cache,
        model_sha256=str(card.model_sha256),
        gpu=gpus[gpu.device_id] if gpu.device_id < len(gpus) else None,
        versions=library_versions(),
        options=options,
        tf32=gpu.tf32,
    )


def _load_libraries(provider: Provider, gpu: GpuOptions) -> None:
    """Load the libraries of CUDA and TensorRT from their packages.

    Raises:
        InputError: TensorRT is missing.
    """
    import onnxruntime

    if provider == "cpu":
        return
    if provider == "tensorrt" and not gpu.tf32:
        # TensorRT uses TF32 unless it is told otherwise, and its provider has no option for it. NVIDIA's libraries read
        # this variable when they start (https://docs.nvidia.com/deeplearning/tensorrt, "TF32").
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    # onnxruntime prints about missing libraries on standard output, where nobody expects it.
    with contextlib.redirect_stdout(sys.stderr):
        onnxruntime.preload_dlls()
    if provider == "tensorrt" and load_tensorrt() is None:
        raise InputError(
            f"TensorRT's {TENSORRT_LIBRARIES[0]} is not installed here; pip install 'tensorrt-cu13-libs>=10,<11' "
            "(docs/gpu.md), or choose the provider cuda"
        )


def _create(
    model: Path, options: onnxruntime.SessionOptions, provider: Provider, providers: ProviderList
) -> onnxruntime.InferenceSession:
    import onnxruntime

    try:
        with contextlib.redirect_stdout(sys.stderr):
            # Without this, onnxruntime prints the error of a GPU and goes on with the CPU, also in the middle of a run.
            session = onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors share no base class
        raise InputError(f"onnxruntime cannot open {model} on {provider}: {reason(error)}; export it again") from error
    wanted = providers[0][0]
    if wanted not in session.get_providers():
        raise InputError(
            f"onnxruntime has no working {wanted} here (it offers {', '.join(session.get_providers())}); "
            "pip install 'onnxruntime-gpu[cuda,cudnn]' on a machine with a GPU, or choose provider cpu"
        )
    return session
