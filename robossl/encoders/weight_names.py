"""Fit the tensors of a checkpoint to a backbone: translate names, remove wrappers, resample position embeddings."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from robossl.encoders.positions import fit_positions
from robossl.encoders.weights import State, below_prefix, first_names
from robossl.errors import InputError

# Parts of a checkpoint that are ignored: classifiers, pretraining heads, mask tokens, the counter of weight averaging.
# A name that is neither in this list nor in the backbone may be a misspelt backbone weight, so the file is refused.
_BESIDE = re.compile(
    r"(fc|heads?|head_dist|classifier|pre_logits|\w*_head|projector|projection|predictor|prototypes|decoder\w*"
    r"|mask_token|masked_embed|queue\w*|n_averaged)(\.|$)"
)
# Buffers that the backbone computes from its sizes. The values of a checkpoint for these buffers are ignored.
_DERIVED = re.compile(
    r"(^|\.)(relative_position_index|attn_mask|rope_embed\.periods|rope\.freqs_(cos|sin)|qkv\.bias_mask)$"
)
# Optimizer state repeats the names of weights, so it is left out of the search for encoders.
_OPTIMIZER = re.compile(r"(^|\.)(optimizers?|optim|optimizer_states|opt)(\.|$)")
_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

# A prefix of names belongs to an encoder if at least this share of the backbone's weights is found below the prefix.
SHARE_OF_ENCODER = 0.5

# Patterns of names in torchvision's VisionTransformer, each with timm's name.
# torchvision's ResNets already use timm's names.
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

# Patterns of names in other libraries, each with timm's name.
# The patterns are tried in this order on names that the backbone does not have.
_ALIASES = (
    (r"^(register_tokens|storage_tokens)$", "reg_token"),  # DINOv2, DINOv3
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # DINOv2's training checkpoints group the blocks in chunks
    (r"\.mlp\.w12\.", ".mlp.fc1."),  # DINOv2's largest model
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"\.gamma_(\d)$", r".ls\1.gamma"),  # DeiT III
    (r"\.ls(\d)\.gamma$", r".gamma_\1"),  # DINOv3
)


def load_weights(
    backbone: Any, source: State, *, name: str, origin: str, source_hw: tuple[int, int] | None = None
) -> None:
    """Load the weights of a checkpoint into a backbone.

    The weights may have timm's or torchvision's names, below any common prefix. Other contents of the checkpoint
    (classifiers, pretraining heads, mask tokens) are ignored. Position embeddings are resampled to the backbone's grid.

    Args:
        backbone: A timm model.
        source: The tensors of a checkpoint.
        name: Name of the backbone, for messages.
        origin: Name of the checkpoint, for messages.
        source_hw: Input size that the checkpoint was trained at, if known.

    Raises:
        InputError: keys are missing or left over, shapes differ, the file contains several encoders, the grid of its
            position embeddings is unknown, or a weight is not a float or contains nan or infinity.
    """
    target = backbone.state_dict()
    state = _translate(source)
    state = below_prefix(state, _find_prefix(state, target, origin=origin))
    state = _split_biases(_move_class_position(_rename(state, target), source=state, target=target), target)
    state = {key: value for key, value in state.items() if key in target or not _is_beside(key)}
    if "pos_embed" in state and "pos_embed" in target:
        state["pos_embed"] = fit_positions(state["pos_embed"], backbone, source_hw=source_hw, origin=origin)
    _check_fit(state, target, name=name, origin=origin)
    _check_numbers(state, target, origin=origin)
    backbone.load_state_dict(state, strict=False)


def _check_numbers(state: State, target: State, *, origin: str) -> None:
    """Refuse weights with nan or infinity (a run that diverged), and integers (a quantised file)."""
    for key, tensor in state.items():
        if key not in target or not target[key].is_floating_point():
            continue
        if not tensor.is_floating_point():
            raise InputError(f"{origin} holds {key} as {tensor.dtype}; save the weights as floats, not quantised")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{origin} holds nan or inf in {key}: the run that made it diverged; take an earlier one")


def _check_fit(state: State, target: State, *, name: str, origin: str) -> None:
    missing = [key for key in target if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in target]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(target[key].shape)}"
        for key in target
        if key in state and state[key].shape != target[key].shape
    ]
    if missing or unexpected or shapes:
        raise InputError(
            f"{origin} does not fit {name}: {len(missing)} missing keys ({first_names(missing)}), {len(unexpected)} "
            f"unexpected ({first_names(unexpected)}), {len(shapes)} of another shape ({first_names(shapes)}); "
            "set encoder.backbone to the model these weights belong to"
        )


def _is_beside(key: str) -> bool:
    return bool(_BESIDE.match(key) or _DERIVED.search(key))


def _rename(state: State, target: State) -> dict[str, Tensor]:
    """Replace weight names of other libraries by timm's names, if the backbone has weights with these timm names."""
    return {_known_name(key, target): tensor for key, tensor in state.items()}


def _known_name(key: str, target: State) -> str:
    name = key
    for pattern, words in _ALIASES:
        name = name if name in target else re.sub(pattern, words, name)
    return name if name in target else key


def _move_class_position(state: dict[str, Tensor], *, source: State, target: State) -> dict[str, Tensor]:
    """Add the class token's position embedding to the class token.

    DINOv2 with registers has a position embedding for the class token, but timm's model of it has none. The sum gives
    the same output.
    """
    if "register_tokens" in source and {"reg_token", "cls_token", "pos_embed"} <= target.keys() & state.keys():
        positions = state["pos_embed"]
        state = state | {"cls_token": state["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
    return state


def _split_biases(state: dict[str, Tensor], target: State) -> dict[str, Tensor]:
    """Split DINOv3's joint qkv biases into timm's query and value biases.

    Key biases are dropped, because the model does not use them. A backbone may also have no query and value biases.
    Then the biases of the checkpoint are dropped if all of them are 0, as in DINOv3's distilled models.
    """
    out = {}
    for key, tensor in state.items():
        start = key.removesuffix("qkv.bias")
        if start == key or key in target or len(tensor) % 3:
            out[key] = tensor
            continue
        queries, _, values = tensor.chunk(3)
        if {f"{start}q_bias", f"{start}v_bias"} <= target.keys():
            out |= {f"{start}q_bias": queries, f"{start}v_bias": values}
        elif queries.any() or values.any():
            out[key] = tensor
    return out


def _translate(state: State) -> dict[str, Tensor]:
    """Replace torchvision's names by timm's, and remove the parts of names that wrappers such as FSDP add."""
    out = {_WRAPPERS.sub("", key): tensor for key, tensor in state.items()}
    if not any("encoder_layer_0." in key for key in out):
        return out
    for pattern, words in _TORCHVISION_VIT:
        out = {re.sub(pattern, words, key): tensor for key, tensor in out.items()}
    return out


def _find_prefix(state: State, target: State, *, origin: str) -> str:
    hits: dict[str, int] = {}
    for key in state:
        parts = key.split(".")
        if _OPTIMIZER.search(key):
            continue
        for cut in range(len(parts)):
            if _known_name(".".join(parts[cut:]), target) in target:
                prefix = ".".join(parts[:cut])
                hits[prefix] = hits.get(prefix, 0) + 1
    full = [prefix for prefix, count in hits.items() if count == max(hits.values())]
    if full and hits[full[0]] < SHARE_OF_ENCODER * len(target):
        # Too few names match below any prefix, so the checkpoint is used without a prefix.
        return ""
    if len(full) > 1:
        choices = " or ".join(f"{origin}#{prefix}" for prefix in full)
        raise InputError(f"{origin} contains several encoders; choose one: {choices}")
    return full[0] if full else ""
