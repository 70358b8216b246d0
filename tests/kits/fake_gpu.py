"""A GPU that is not there: tensors with the device cuda, shapes and types but no values, on any machine with CPUs.

CPU tensors stay real, and so does what numpy makes of them. Mixing both kinds is an error, as it is on a GPU. A copy to
the CPU gives ones. `FakeGpu` also notes what a GPU would do badly: see its attributes.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from places import ROOT
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda")
_SCALARS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default}
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


@dataclass
class FakeGpu(TorchDispatchMode):
    """Run every operation that touches the GPU on tensors without values.

    Attributes:
        cpu_tensors: Where tensors were made on the CPU, with the operation.
        waits: Where the program waited for the GPU: it read a value, or copied between CPU and GPU without
            `non_blocking`.
    """

    cpu_tensors: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    fake: FakeTensorMode = field(default_factory=lambda: FakeTensorMode(allow_non_fake_inputs=True))

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Under inference mode nothing else takes composite operations apart.
        if torch.is_inference_mode_enabled() and func.namespace == "aten" and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        held = any(isinstance(each, FakeTensor) for each in leaves)
        if not held and not any(isinstance(each, torch.device) and each.type == "cuda" for each in leaves):
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
            if not any(isinstance(each, Tensor) for each in leaves) and isinstance(out, Tensor):
                self.cpu_tensors.append(_where(func))
            return out
        if func in _SCALARS:
            self.waits.append(_where(func))
            with unset_fake_temporarily():
                return torch.ones((), dtype=args[0].dtype).item()
        out = func(*args, **kwargs)
        if _blocks(func, args, out, kwargs):
            self.waits.append(_where(func))
        if isinstance(out, FakeTensor) and out.device.type == "cpu":
            with unset_fake_temporarily():
                return torch.ones(out.shape, dtype=out.dtype)
        return out


def _blocks(func: Any, args: tuple[Any, ...], out: Any, kwargs: dict[str, Any]) -> bool:
    """Whether this is a copy between CPU and GPU that blocks."""
    if func not in _COPIES or kwargs.get("non_blocking"):
        return False
    if func is torch.ops.aten.copy_.default and len(args) > 2 and args[2]:
        return False
    source = args[1] if func is torch.ops.aten.copy_.default else args[0]
    return bool(source.device.type != out.device.type)


def _where(func: Any) -> str:
    """The innermost line of the package (or of a test) that is running."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(str(ROOT))]
    own = [frame for frame in frames if "/kits/" not in frame.filename and ".venv" not in frame.filename]
    place = own[-1] if own else frames[-1]
    return f"{place.filename.removeprefix(str(ROOT))}:{place.lineno} {func}"


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Run a `with` block on a fake GPU. cuDNN is off, because its recurrent networks ask the driver."""
    with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=False):
        gpu = FakeGpu()
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        with gpu.fake, gpu:
            yield gpu


def on_gpu(value: Any) -> Any:
    """Move a module, tensor, dataclass, tuple or dict to the fake GPU; call this inside `fake_gpu`."""
    return moved(value, GPU)


def moved(value: Any, device: torch.device) -> Any:
    """Return a module, tensor, dataclass, tuple or dict with tensors of the same shapes, without values, on a device.

    A module is changed in place.
    """
    if isinstance(value, nn.Module):
        for module in value.modules():
            for held in (module._parameters, module._buffers):
                for name, old in held.items():
                    if old is not None:
                        held[name] = moved(old, device)
        return value
    if isinstance(value, Tensor):
        new = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
        return nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: moved(getattr(value, each.name), device) for each in fields(value)})
    if isinstance(value, tuple):
        return tuple(moved(each, device) for each in value)
    return {name: moved(each, device) for name, each in value.items()} if isinstance(value, dict) else value
