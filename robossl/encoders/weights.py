"""Read the weights of a backbone from a file or from timm's hub."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robossl.errors import InputError, ResourceError, reason

State = Mapping[str, Tensor]


def weights_digest(state: State) -> str:
    """Return the sha256 of the tensors' names, dtypes, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_hub(backbone: str) -> State:
    """Download the weights of a backbone from timm's hub.

    Raises:
        InputError: the hub has no weights of that name.
        ResourceError: the weights cannot be downloaded.
    """
    import timm

    if not timm.is_model_pretrained(backbone):
        raise InputError(f"timm's hub has no weights for {backbone!r}; use init=random or a local checkpoint")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # hides a dozen log lines about retries
    try:
        model: nn.Module = timm.create_model(backbone, pretrained=True, num_classes=0)
    except Exception as error:  # the type depends on the version of huggingface_hub
        raise ResourceError(
            f"cannot download timm's weights for {backbone!r} ({reason(error)}); check the network, "
            "or download them elsewhere and pass their path as encoder.init"
        ) from error
    return model.state_dict()


def read_weights(source: str) -> State:
    """Read the tensors of a checkpoint; the keys of nested dicts are joined by dots.

    Args:
        source: PATH, or PATH#PREFIX to choose among encoders in a file. PATH is a .safetensors file, a torch file
            (read without unpickling code), an encoder folder, a run folder, or a folder of .safetensors files.

    Raises:
        InputError: the checkpoint is missing, cannot be read, or has no key under PREFIX.
    """
    path, prefix = split_source(source)
    if not path.exists():
        raise InputError(f"no checkpoint at {source!r}; encoder.init is random, timm or a checkpoint's path")
    if path.is_dir():
        files = next((found for found in _weight_files(path) if found), [])
        if not files:
            raise InputError(f"{path} holds no .safetensors; pass RUN, RUN/encoder or a checkpoint file")
    else:
        files = [path]
    state = {name: tensor for file in files for name, tensor in _read_file(file).items()}
    if not prefix:
        return state
    kept = below_prefix(state, prefix)
    if not kept:
        raise InputError(f"{path} has no key under {prefix!r}; its first keys: {first_names(state)}")
    return kept


def split_source(source: str) -> tuple[Path, str]:
    """Split PATH#PREFIX into path and prefix. If the whole text is the name of a file, the prefix is empty."""
    place, _, prefix = source.rpartition("#")
    return (Path(place), prefix) if place and not Path(source).exists() else (Path(source), "")


def _weight_files(folder: Path) -> Iterator[list[Path]]:
    for place in (folder / "encoder", folder):
        yield sorted(place.glob("*.safetensors"))


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return dict(_flatten(torch.load(path, map_location="cpu", weights_only=True), ""))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, or is no checkpoint, and is not unpickled; if you trust it, "
            "save its state_dict again with safetensors.torch.save_file and pass that file"
        ) from error
    except Exception as error:  # torch's reader raises errors of any type on a damaged file
        raise InputError(f"{path} cannot be read as a checkpoint: {reason(error)}") from error


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))


def below_prefix(state: State, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, with the prefix removed."""
    if not prefix:
        return dict(state)
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def first_names(names: Iterable[str]) -> str:
    """Return the first three names, for a message."""
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
