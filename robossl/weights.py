"""Weights: a backbone's state dict from whatever file holds it (timm, torchvision, robossl)."""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from robossl.errors import InputError, ResourceError, reason

State = Mapping[str, Tensor]

_HEADS = ("fc", "head", "head_dist", "heads", "classifier")  # classifiers of timm and torchvision models

# torchvision's VisionTransformer in timm's words; its ResNets need no translation
_TORCHVISION_VIT = (
    (r"class_token$", "cls_token"),
    (r"conv_proj\.", "patch_embed.proj."),
    (r"encoder\.pos_embedding$", "pos_embed"),
    (r"encoder\.ln\.", "norm."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)


def weights_digest(state: State) -> str:
    """sha256 of names, dtypes, shapes and bytes in order of name: the same weights give the same digest."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_hub(backbone: str) -> State:
    """The weights timm's hub holds for a name.

    Raises:
        InputError: the hub has none for it.
        ResourceError: they cannot be downloaded.
    """
    import timm

    if not timm.is_model_pretrained(backbone):
        raise InputError(f"timm's hub has no weights for {backbone!r}; use init=random or a local checkpoint")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a dozen lines of retries; the end is ours
    try:
        model: nn.Module = timm.create_model(backbone, pretrained=True, num_classes=0)
    except Exception as error:  # its type depends on the versions of huggingface_hub and its http client
        raise ResourceError(
            f"cannot download timm's weights for {backbone!r} ({reason(error)}); check the network, "
            "or download them elsewhere and pass their path as encoder.init"
        ) from error
    return model.state_dict()


def read_weights(source: str) -> State:
    """Tensors of a checkpoint by flat name; `PATH#PREFIX` keeps one of several encoders that a file holds.

    PATH is a .safetensors file, a torch file (read without unpickling code), an encoder folder, a run folder,
    or a folder of safetensors files.
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
    kept = _under(state, prefix)
    if not kept:
        raise InputError(f"{path} has no key under {prefix!r}; its first keys: {_some(state)}")
    return kept


def split_source(source: str) -> tuple[Path, str]:
    """PATH and PREFIX of `PATH#PREFIX`; what exists as it is written is all path, and has no prefix."""
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
            f"{path} holds more than tensors, or is no checkpoint, and is not unpickled; where you trust it, "
            "save its state_dict again with safetensors.torch.save_file and pass that file"
        ) from error
    except Exception as error:  # of any type: a damaged file is read as far as torch's reader trusts it
        raise InputError(f"{path} cannot be read as a checkpoint: {reason(error)}") from error


def _flatten(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))


def load_weights(backbone: nn.Module, source: State, *, name: str, origin: str) -> None:
    """Fill a backbone from a state dict in timm's or torchvision's names, under any one prefix.

    Classifier heads are ignored, and so is everything beside the prefix; position embeddings are resampled.

    Raises:
        InputError: keys are missing or left over, shapes differ, or the file holds several encoders.
    """
    target = backbone.state_dict()
    state = _translate(source)
    state = _under(state, _find_prefix(state, target, origin=origin))
    state = {key: value for key, value in state.items() if key in target or key.split(".")[0] not in _HEADS}
    if "pos_embed" in state and "pos_embed" in target:
        state["pos_embed"] = _fit_pos_embed(state["pos_embed"], backbone)
    missing = [key for key in target if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in target]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(target[key].shape)}"
        for key in target
        if key in state and state[key].shape != target[key].shape
    ]
    if missing or unexpected or shapes:
        raise InputError(
            f"{origin} does not fit {name}: {len(missing)} missing keys ({_some(missing)}), {len(unexpected)} "
            f"unexpected ({_some(unexpected)}), {len(shapes)} of another shape ({_some(shapes)}); "
            "set encoder.backbone to the model these weights belong to"
        )
    backbone.load_state_dict(state, strict=False)


def _translate(state: State) -> dict[str, Tensor]:
    if not any("encoder_layer_0." in key for key in state):
        return dict(state)
    out = {}
    for key, tensor in state.items():
        for pattern, words in _TORCHVISION_VIT:
            key = re.sub(pattern, words, key)
        out[key] = tensor
    return out


def _find_prefix(state: State, target: State, *, origin: str) -> str:
    hits: dict[str, int] = {}
    for key in state:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in target:
                prefix = ".".join(parts[:cut])
                hits[prefix] = hits.get(prefix, 0) + 1
    full = [prefix for prefix, count in hits.items() if count == max(hits.values())]
    if len(full) > 1:
        choices = " or ".join(f"{origin}#{prefix}" for prefix in full)
        raise InputError(f"{origin} holds several encoders; choose one: {choices}")
    return full[0] if full else ""


def _under(state: State, prefix: str) -> dict[str, Tensor]:
    if not prefix:
        return dict(state)
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def _fit_pos_embed(pos_embed: Tensor, backbone: Any) -> Tensor:
    if pos_embed.ndim != 3 or pos_embed.shape == backbone.pos_embed.shape:
        return pos_embed
    num_prefix = 0 if getattr(backbone, "no_embed_class", False) else backbone.num_prefix_tokens
    side = int(np.sqrt(pos_embed.shape[1] - num_prefix))
    if side * side != pos_embed.shape[1] - num_prefix:
        return pos_embed
    grid = list(backbone.patch_embed.grid_size)
    out: Tensor = resample_abs_pos_embed(pos_embed, grid, old_size=[side, side], num_prefix_tokens=num_prefix)
    return out


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"
