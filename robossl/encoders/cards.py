"""Make the card (name, shapes, provenance, licences) of a torch encoder from its weights and training record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from robossl_client.card import EncoderCard, InputContract, TensorSpec, licence_warnings

from robossl.common.version import __version__
from robossl.encoders.encoder import Encoder, named_outputs, read_encoder
from robossl.encoders.encoder_files import read_about
from robossl.encoders.find import find_encoder
from robossl.encoders.pip_weights import PREFIX, describe_licence
from robossl.encoders.weights import split_source, weights_digest


def open_encoder(folder: Path) -> tuple[Encoder, EncoderCard]:
    """Read the encoder of a folder and make its card (description).

    The name in the card is the folder's name; for the folder RUN/encoder it is RUN.
    """
    encoder = read_encoder(folder)
    place = folder.resolve()
    name = place.parent.name if place.name == "encoder" else place.name
    return encoder, torch_card(encoder, name=name, extra=read_about(folder)["extra"])


def torch_card(encoder: Encoder, *, name: str, extra: dict[str, Any]) -> EncoderCard:
    """Make the card (description) of a torch encoder; `extra` is the training record that `save_encoder` wrote."""
    config = encoder.config
    data, teachers = extra.get("data", []), extra.get("teachers", [])
    licences = sorted({licence for source in (*data, *teachers) for licence in source["licences"]})
    warnings = licence_warnings(licences)
    if extra.get("method") and not any(store["licences"] for store in data):
        warnings += ("the licences of the training data are not recorded",)
    if config.init.startswith(PREFIX):
        warnings += (describe_licence(config.init),)
    elif not extra.get("start_recorded", config.init == "random"):
        warnings += (f"training started from {Path(config.init).name}, whose licence is not recorded",)
    warnings += tuple(map(_describe_teacher, teachers))
    return EncoderCard(
        name=name,
        version=0,
        digest=weights_digest(encoder.backbone.state_dict()),
        backbone=config.backbone,
        input=InputContract(
            tensor=TensorSpec("uint8", ("batch", "height", "width", 3)),
            input_hw=config.input_hw,
            mean=config.mean,
            std=config.std,
            fixed_hw=None,
        ),
        outputs=_output_specs(encoder),
        created_by=f"robossl {__version__}",
        method=extra.get("method"),
        step=extra.get("step"),
        config_hash=extra.get("config_hash"),
        data=tuple(store["store"] for store in data),
        licences=tuple(licences),
        warnings=warnings,
    )


def data_before(init: str) -> tuple[list[dict[str, Any]], bool]:
    """Return the data stores that the initial weights were trained on, and whether this list is complete.

    The `encoder.json` of this package's encoders lists all stores that their weights were ever trained on. Weights from
    elsewhere have no such list.

    Returns:
        The stores, oldest first, in the form that `save_encoder` writes under "data"; and whether this list is
        complete, that is, whether no other data was used.

    Raises:
        InputError: the `encoder.json` cannot be read, or its schema is unknown.
    """
    folder = _folder_of(init)
    if folder is None:
        return [], init == "random"
    about = read_about(folder)
    extra = about["extra"]
    return extra.get("data", []), extra.get("start_recorded", about["config"]["init"] == "random")


def teachers_before(init: str) -> list[dict[str, Any]]:
    """Return what `teacher_record` returned for the teachers of the initial weights, if they were distilled.

    Raises:
        InputError: the `encoder.json` cannot be read, or its schema is unknown.
    """
    folder = _folder_of(init)
    return [] if folder is None else read_about(folder)["extra"].get("teachers", [])


def teacher_record(address: str, card: EncoderCard) -> dict[str, Any]:
    """Return what the card of a student says of its teacher: name, digest, licences of its data, and warnings.

    Args:
        address: What `load_encoder` opened. Only an address of public weights is kept as the name, without folders.
        card: The card of the teacher.
    """
    public, at, file = address.partition("@")
    is_public = address.startswith(("timm:", PREFIX))
    return {
        "name": f"{public}{at}{Path(file).name}" if is_public else card.name,
        "digest": card.model_sha256 or card.digest,
        "licences": list(card.licences),
        "warnings": list(card.warnings),
    }


def _describe_teacher(record: dict[str, Any]) -> str:
    data = [f"data under {', '.join(record['licences'])}"] if record["licences"] else []
    known = "; ".join([*data, *record["warnings"]]) or "its licence is not recorded"
    return f"distilled from the teacher {record['name']} ({record['digest'][:12]}): {known}"


def _folder_of(init: str) -> Path | None:
    """Return the encoder folder that the initial weights come from; None if they come from elsewhere."""
    is_public = init in ("random", "timm") or init.startswith(PREFIX)
    return None if is_public else find_encoder(split_source(init)[0])


def _output_specs(encoder: Encoder) -> dict[str, TensorSpec]:
    device = next(encoder.parameters()).device
    frames = torch.zeros((1, *encoder.config.input_hw, 3), dtype=torch.uint8, device=device)
    was_training = encoder.training
    encoder.eval()
    with torch.inference_mode():
        named = named_outputs(encoder(encoder.preprocess(frames)))
    encoder.train(was_training)
    return {name: TensorSpec("float32", ("batch", *value.shape[1:])) for name, value in named.items()}
