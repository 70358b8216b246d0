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
    if source.startswith("grpc://"):
        from robossl.probes.subjects.served import open_served

        return _undescribed(open_served(source, outputs=outputs, token=token, ca=ca), described)
    if token or ca:
        raise InputError(
            f"--token and --ca are for a server (grpc://HOST:PORT/MODEL), not for {source}; leave them out"
        )
    if source.startswith("timm:"):
        from robossl.probes.subjects.ours import open_timm

        return _undescribed(open_timm(source, device=device, outputs=outputs), described)
    if source.startswith("projector:"):
        from robossl.probes.subjects.projector import open_projector

        return _undescribed(open_projector(source, device=device, outputs=outputs), described)
    if source.endswith(".onnx") and not Path(source).with_name("card.json").is_file():
        from robossl.probes.subjects.onnx_file import open_onnx

        return open_onnx(source, described or Described(), device=device)
    from robossl.probes.subjects.ours import open_ours

    return _undescribed(open_ours(source, device=device, outputs=outputs), described)


def _undescribed(probed: Probed, described: Described | None) -> Probed:
    if described not in (None, Described()):
        raise InputError(f"{probed.about.source} says itself how it takes frames; leave the description out")
    return probed
