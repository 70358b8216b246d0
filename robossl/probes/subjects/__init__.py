"""Subjects: whatever a person already owns, as something that embeds frames.

A run folder, an encoder folder, our exported model, any ONNX model with a described input, an encoder that a server
has (`grpc://host:port/model`), a public one by its name (`timm:NAME[@FILE]`), or what the loss of a run sees
(`projector:RUN`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robossl.errors import InputError
from robossl.probes.subjects.described import Described as Described
from robossl.probes.subjects.probed import Output as Output
from robossl.probes.subjects.probed import Probed as Probed
from robossl.probes.subjects.references import pixels_reference as pixels_reference
from robossl.probes.subjects.references import random_reference as random_reference

UNDESCRIBED = Described()


def open_subject(
    source: str,
    *,
    described: Described | None = None,
    device: str = "cpu",
    outputs: Sequence[Output] = ("pooled", "dense"),
    token: Path | None = None,
    ca: Path | None = None,
) -> Probed:
    """Open an ENCODER of the command line.

    Args:
        source: What it is.
        described: What is known of an ONNX model of others.
        device: cpu or cuda.
        outputs: What is wanted of it; a dense map is left out where the encoder has none.
        token: File with a server's token.
        ca: PEM file of the authority that signed a server's certificate.

    Raises:
        InputError: nothing that can be probed, or something of its input that is not known.
        ResourceError: a server that does not answer, weights that cannot be downloaded.
    """
    described = described or Described()
    check_source(source, described=described, token=token, ca=ca)
    if source.startswith("grpc://"):
        from robossl.probes.subjects.served import open_served

        return open_served(source, outputs=outputs, token=token, ca=ca)
    if source.startswith("timm:"):
        from robossl.probes.subjects.ours import open_timm

        return open_timm(source, device=device, outputs=outputs)
    if source.startswith("projector:"):
        from robossl.probes.subjects.projector import open_projector

        return open_projector(source, device=device, outputs=outputs)
    if is_foreign(source):
        from robossl.probes.subjects.onnx_file import open_onnx

        return open_onnx(source, described, device=device)
    from robossl.probes.subjects.ours import open_ours

    return open_ours(source, device=device, outputs=outputs)


def check_source(
    source: str, *, described: Described = UNDESCRIBED, token: Path | None = None, ca: Path | None = None
) -> None:
    """Check that ENCODER names an encoder and is described correctly, without loading weights.

    Raises:
        InputError: nothing of what `open_subject` opens, or options that are not for it.
    """
    is_served = source.startswith("grpc://")
    if (token or ca) and not is_served:
        raise InputError(
            f"--token and --ca are for a server (grpc://HOST:PORT/MODEL), not for {source}; leave them out"
        )
    if is_foreign(source):
        from robossl.probes.subjects.onnx_file import check_onnx

        return check_onnx(source, described)
    if described != UNDESCRIBED:
        raise InputError(f"{source} says itself how it takes frames and what it is; leave the description out")
    if is_served:
        from robossl.served_encoder import address_of

        address_of(source)
    elif source.startswith("timm:"):
        from robossl.timm_encoder import check_timm

        check_timm(source)
    elif source.startswith("projector:"):
        from robossl.probes.subjects.projector import run_of

        run_of(source)
    else:
        from robossl.find import find_encoder, find_model

        find_encoder(Path(source)) or find_model(Path(source))


def is_foreign(source: str) -> bool:
    """Whether it is an ONNX model without a card beside it."""
    return source.endswith(".onnx") and "://" not in source and not Path(source).with_name("card.json").is_file()
