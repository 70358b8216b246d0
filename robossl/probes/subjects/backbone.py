"""Which network an ONNX model of others is: told by its owner, by its metadata, by its file's name, or by nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robossl.backbones import unknown_backbone
from robossl.errors import InputError
from robossl.probes.result import Backbone

if TYPE_CHECKING:
    import onnxruntime

HUB_PREFIXES = ("hf-hub:", "hf_hub:", "timm/")


def find_backbone(path: Path, session: onnxruntime.InferenceSession, told: str | None) -> Backbone | None:
    """Find the timm name of a model's network, from the surest source that names exactly one; None where none does.

    Raises:
        InputError: `told` is no network that timm knows.
    """
    if told is not None:
        name = _timm_name(told)
        if name is None:
            raise InputError(f"{unknown_backbone(told)}; or leave --input.backbone out")
        return Backbone(name, "option")
    meta = session.get_modelmeta()
    texts = [*meta.custom_metadata_map.values(), meta.graph_name, meta.description]
    named = {name for text in texts if (name := _timm_name(text))}
    if len(named) == 1:
        return Backbone(named.pop(), "metadata")
    stem = path.stem if path.stem != "model" else path.resolve().parent.name
    name = _timm_name(stem) or _timm_name(stem.replace("-", "_").lower())
    return Backbone(name, "file name") if name else None


def _timm_name(text: str) -> str | None:
    """The architecture that a text is the name of, without the tag of its weights."""
    import timm

    name = text.strip()
    for prefix in HUB_PREFIXES:
        name = name.removeprefix(prefix)
    architecture = name.partition(".")[0]
    return architecture if architecture and timm.is_model(architecture) else None
