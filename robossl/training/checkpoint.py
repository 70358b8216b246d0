"""Checkpoints: safetensors and JSON in a folder, which gets its final name last, so no checkpoint is incomplete."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robossl.common.atomic_io import share, sync
from robossl.common.sharding import sharded_like, whole
from robossl.errors import InputError, ResourceError

SCHEMA = "robossl.checkpoint/1"


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
    is_main: bool = True,
) -> Path:
    """Write the checkpoint `folder/step_<step>`, and remove all checkpoints but the newest `keep`.

    Args:
        folder: the run's checkpoints folder.
        step: number of steps done.
        method: module whose whole state dict is saved, with buffers (queues, banks, teachers).
        optimizer: optimizer whose state and hyperparameters are saved.
        state: state of the training loop as plain numbers and strings, such as counters.
        keep: number of checkpoints to keep.
        is_main: whether this rank writes. If the method is sharded, all ranks must call this function, because the
            main rank gathers their parts: a checkpoint holds whole tensors.

    Raises:
        ResourceError: the disk is full or cannot be written to; earlier checkpoints are untouched.
    """
    target, aside = folder / f"step_{step:08d}", folder / f".step_{step:08d}.tmp"
    tensors, groups = _flatten_optimizer(optimizer, keep=is_main)
    weights = _whole_copies(method.state_dict(), keep=is_main)
    if not is_main:
        return target
    for leftover in folder.glob(".step_*"):  # left by a save that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    head = {"schema": SCHEMA, "step": step, "optimizer": groups, "state": state, "torch": torch.__version__}
    try:
        aside.mkdir(parents=True)
        save_file(weights, aside / "method.safetensors")
        save_file(tensors, aside / "optimizer.safetensors")
        (aside / "state.json").write_text(json.dumps(head, indent=1))
        for path in aside.iterdir():
            share(path)
            sync(path)
        sync(aside)
        replaced = [_rename_for_removal(target)] if target.exists() else []
        aside.rename(target)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise ResourceError(
            f"could not write checkpoint {target}: {error}; earlier checkpoints are kept, "
            "make room and run the same command with --resume"
        ) from error
    for old in [*replaced, *map(_rename_for_removal, checkpoints(folder)[:-keep])]:
        shutil.rmtree(old)
    return target


def load_checkpoint(path: Path, *, method: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Restore method and optimizer in place; return the number of steps done and the state of the training loop.

    Raises:
        InputError: the checkpoint cannot be read, has an unknown schema, or belongs to a different model.
    """
    try:
        head = json.loads((path / "state.json").read_text())
        if head.get("schema") != SCHEMA:
            raise InputError(f"{path} has schema {head.get('schema')!r}, this version reads {SCHEMA!r}")
        method.load_state_dict(_sharded_as(method.state_dict(), load_file(path / "method.safetensors")))
        _restore_optimizer(optimizer, load_file(path / "optimizer.safetensors"), head["optimizer"])
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot resume from {path}: {error}; remove that folder to resume from an older one"
        ) from error
    return int(head["step"]), dict(head["state"])


def checkpoints(folder: Path) -> list[Path]:
    """Return the paths of the complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step_*") if (path / "state.json").exists())


def step_of(path: Path) -> int:
    """Return the number of steps done at a checkpoint, which is part of its name."""
    return int(path.name.removeprefix("step_"))


def _rename_for_removal(path: Path) -> Path:
    """Rename a checkpoint before it is removed, so that a half-removed checkpoint is never read."""
    return path.rename(path.with_name(f".{path.name}.old"))


def _whole_copies(tensors: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Return contiguous copies of whole tensors if `keep`, else only help the other ranks to gather theirs."""
    copies = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor.detach())
        if keep:
            copies[name] = gathered.clone(memory_format=torch.contiguous_format)
    return copies


def _sharded_as(state: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: sharded_like(tensor, state.get(name, tensor)) for name, tensor in tensors.items()}


def _flatten_optimizer(
    optimizer: torch.optim.Optimizer, *, keep: bool
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    saved = optimizer.state_dict()
    tensors = {f"{index}.{key}": value for index, slots in saved["state"].items() for key, value in slots.items()}
    found = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    return _whole_copies(found, keep=keep), saved["param_groups"]


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        weight = weights[int(index)]
        state.setdefault(int(index), {})[key] = sharded_like(tensor, weight) if tensor.shape == weight.shape else tensor
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in groups]  # JSON has no tuples
    for group, own in zip(groups, optimizer.param_groups, strict=False):
        if "fused" in own:
            group["fused"] = own["fused"]  # depends on whether the weights are sharded
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for weight, slots in optimizer.state.items():
        for key, value in slots.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                # Fused optimizers ignore strides, so the state needs the memory format of its weight.
                slots[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
