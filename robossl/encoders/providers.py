"""Options of onnxruntime's execution providers (CPU, CUDA, TensorRT), all in one place.

The defaults keep the numbers of the exported graph. TF32, fp16 and bf16 change them and must be asked for; the server
then compares the outputs with the exported graph within the limits of half precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robossl_client.card import InputContract

from robossl.common.checks import check_positive, check_range
from robossl.errors import InputError

Provider = Literal["cpu", "cuda", "tensorrt"]
ProviderList = list[tuple[str, dict[str, str]]]  # what onnxruntime's InferenceSession takes

_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """How a GPU runs an exported model."""

    device_id: int = 0  # number of the GPU
    memory_gib: float | None = None  # limit of CUDA's memory pool; None for all of the GPU
    # How cuDNN chooses convolutions. exhaustive times all of them at the first run of each shape, so its choice, and
    # with it the rounding, can differ between two starts.
    conv_search: Literal["heuristic", "exhaustive", "default"] = "heuristic"
    tf32: bool = False  # compute matrix products of fp32 with ten bits of mantissa
    cuda_graph: bool = False  # record the kernels once and replay them; needs a model of fixed frame size and batch
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"  # TensorRT: the lowest precision that the builder may use
    workspace_gib: float = 4.0  # TensorRT: memory that a kernel may use while it runs
    optimisation_level: int = 3  # TensorRT: 0 builds fastest, 5 searches longest
    best_batch: int = 1  # TensorRT: the batch size that the engine is tuned for
    cache: Path | None = None  # TensorRT: folder of the engines; None for robossl/engines in the user's cache folder

    def __post_init__(self) -> None:
        check_range(0, device_id=self.device_id)
        check_positive(memory_gib=self.memory_gib, workspace_gib=self.workspace_gib)
        check_range(0, 5, optimisation_level=self.optimisation_level)
        check_range(1, best_batch=self.best_batch)

    def changes_numbers(self, provider: Provider) -> bool:
        """Return whether the outputs may differ from the exported graph by more than the rounding of fp32."""
        return provider != "cpu" and (self.tf32 or (provider == "tensorrt" and self.precision != "fp32"))


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """Shapes of the frames that a TensorRT engine accepts, and the shape that it is tuned for."""

    name: str  # of the model's input
    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]

    def options(self) -> dict[str, str]:
        """Return the options of the provider, as in {"trt_profile_min_shapes": "frames:1x224x224x3", ...}."""
        shapes = {"min": self.least, "opt": self.best, "max": self.most}
        return {f"trt_profile_{key}_shapes": f"{self.name}:{_join(shape)}" for key, shape in shapes.items()}


def shape_profile(frames: InputContract, *, best_batch: int, max_batch: int) -> ShapeProfile | None:
    """Return the shapes for a model of fixed frame size; None if its batch is fixed too, as TensorRT then needs none.

    Raises:
        InputError: the model takes frames of any size.
    """
    if frames.fixed_hw is None:
        raise InputError(
            "TensorRT cannot resize frames as the encoder does, and this model takes frames of any size; export it "
            "with --fixed-hw H W, or choose the provider cuda"
        )
    if is_fixed(frames.tensor.shape):
        return None
    size = (*frames.fixed_hw, 3)
    return ShapeProfile(frames.name, (1, *size), (min(best_batch, max_batch), *size), (max_batch, *size))


def is_fixed(shape: Sequence[int | str]) -> bool:
    """Return whether a shape has no variable dimension."""
    return all(isinstance(size, int) for size in shape)


def provider_list(
    provider: Provider,
    gpu: GpuOptions,
    *,
    profile: ShapeProfile | None = None,
    engines: Path | None = None,
) -> ProviderList:
    """Return onnxruntime's providers with their options, the preferred one first.

    TensorRT brings CUDA along, because CUDA runs the nodes that TensorRT does not support.

    Args:
        provider: The provider to use.
        gpu: How the GPU runs the model.
        profile: TensorRT's shapes, if the model's batch is variable.
        engines: Folder of TensorRT's engines and timings; None for no cache.
    """
    if provider == "cpu":
        return [(_NAMES["cpu"], {})]
    cuda = (_NAMES["cuda"], _cuda(gpu, graph=gpu.cuda_graph and provider == "cuda"))
    if provider == "cuda":
        return [cuda]
    return [(_NAMES["tensorrt"], _tensorrt(gpu, profile, engines)), cuda]


def _cuda(gpu: GpuOptions, *, graph: bool) -> dict[str, str]:
    # https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options
    options = {
        "device_id": str(gpu.device_id),
        "cudnn_conv_algo_search": gpu.conv_search.upper(),
        "use_tf32": str(int(gpu.tf32)),
        "enable_cuda_graph": str(int(graph)),
        "do_copy_in_default_stream": "1",
    }
    if gpu.memory_gib is not None:
        # Without the strategy, the pool doubles with every extension and stops at half of the limit.
        options |= {
            "gpu_mem_limit": str(round(gpu.memory_gib * _GIB)),
            "arena_extend_strategy": "kSameAsRequested",
        }
    return options


def _tensorrt(gpu: GpuOptions, profile: ShapeProfile | None, engines: Path | None) -> dict[str, str]:
    # https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html#configurations
    # Its flags must be True or False, unlike CUDA's, which may also be 1 or 0.
    options = {
        "device_id": str(gpu.device_id),
        "trt_fp16_enable": str(gpu.precision == "fp16"),
        "trt_bf16_enable": str(gpu.precision == "bf16"),
        "trt_layer_norm_fp32_fallback": str(gpu.precision != "fp32"),
        "trt_max_workspace_size": str(round(gpu.workspace_gib * _GIB)),
        "trt_builder_optimization_level": str(gpu.optimisation_level),
        "trt_cuda_graph_enable": str(gpu.cuda_graph),
        "trt_engine_cache_enable": str(engines is not None),
        "trt_timing_cache_enable": str(engines is not None),
    }
    if engines is not None:
        options |= {"trt_engine_cache_path": str(engines), "trt_timing_cache_path": str(engines)}
    return options | (profile.options() if profile else {})


def _join(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
