"""Find the network of an ONNX model without a card.json: an option, the metadata or the file name may state it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robossl.encoders.backbones import unknown_backbone
from robossl.errors import InputError
from robossl.measure.subjects.subject import Backbone

if TYPE_CHECKING:
    import onnxruntime

HUB_PREFIXES = ("hf-hub:", "hf_hub:", "timm/")


def find_backbone(path: Path, session: onnxruntime.InferenceSession, told: str | None) -> Backbone | None:
    """Return the network's name from the first of these that states one: the option, the metadata, the file name.

    Return None if none of them states a name. Metadata that name several networks are ignored.

    Args:
        path: The model file.
        session: The open model.
        told: The name that the user gave as an option; None if the user gave none.

    Raises:
        InputError: timm does not know the name `told`.
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
    """Return the architecture that a text names, without the tag of its weights; None if timm does not know it."""
    import timm

    name = text.strip()
    for prefix in HUB_PREFIXES:
        name = name.removeprefix(prefix)
    architecture = name.partition(".")[0]
    return architecture if architecture and timm.is_model(architecture) else None
