"""Subjects: the encoders that can be evaluated or probed; `open_subject` opens them.

A subject can be a run folder, an encoder folder, our exported model, another ONNX model whose input the user describes,
an encoder on a server (`grpc://host:port/model`), a public encoder by name (`timm:NAME[@FILE]`, `pip:NAME`), or the
projector of a run (`projector:RUN`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robossl.errors import InputError
from robossl.measure.subjects.input_description import InputDescription as InputDescription
from robossl.measure.subjects.references import pixels_reference as pixels_reference
from robossl.measure.subjects.references import random_reference as random_reference
from robossl.measure.subjects.subject import Output as Output
from robossl.measure.subjects.subject import Subject as Subject

UNDESCRIBED = InputDescription()


def open_subject(
    source: str,
    *,
    described: InputDescription = UNDESCRIBED,
    device: str = "cpu",
    outputs: Sequence[Output] = ("pooled", "dense"),
    token: Path | None = None,
    ca: Path | None = None,
) -> Subject:
    """Open an encoder that the command line names.

    Args:
        source: A path or an address; see the docstring of this package.
        described: Description of the input, for an ONNX model without a card.
        device: cpu or cuda.
        outputs: Outputs to return; "dense" (the feature map) is left out if the encoder has none.
        token: File with the token of a server.
        ca: PEM file of the authority that signed the certificate of a server.

    Raises:
        InputError: the source is not an encoder, lacks an output, or the description of its input is incomplete.
        ResourceError: a server does not answer, or weights cannot be downloaded.
    """
    check_source(source, described=described, token=token, ca=ca)
    if source.startswith("grpc://"):
        from robossl.measure.subjects.served import open_served

        return open_served(source, outputs=outputs, token=token, ca=ca)
    if source.startswith(("timm:", "pip:")):
        from robossl.measure.subjects.encoders import open_public

        return open_public(source, device=device, outputs=outputs)
    if source.startswith("projector:"):
        from robossl.measure.subjects.projector import open_projector

        return open_projector(source, device=device, outputs=outputs)
    if is_foreign(source):
        from robossl.measure.subjects.onnx_file import open_onnx

        return open_onnx(source, described, device=device, outputs=outputs)
    from robossl.measure.subjects.encoders import open_encoder

    return open_encoder(source, device=device, outputs=outputs)


def check_source(
    source: str, *, described: InputDescription = UNDESCRIBED, token: Path | None = None, ca: Path | None = None
) -> None:
    """Check, without loading weights, that a source names an encoder and that the other options apply to this source.

    Raises:
        InputError: the source is not an encoder, or an option does not apply to it.
    """
    is_served = source.startswith("grpc://")
    if (token or ca) and not is_served:
        raise InputError(
            f"--token and --ca are for a server (grpc://HOST:PORT/MODEL), not for {source}; leave them out"
        )
    if is_foreign(source):
        from robossl.measure.subjects.onnx_file import check_onnx

        return check_onnx(source, described)
    if described != UNDESCRIBED:
        raise InputError(f"{source} has a card that describes its input; leave the description out")
    if is_served:
        from robossl.encoders.served_encoder import split_address

        split_address(source)
    elif source.startswith("timm:"):
        from robossl.encoders.timm_encoder import check_timm

        check_timm(source)
    elif source.startswith("pip:"):
        from robossl.encoders.pip_weights import find_file

        find_file(source)
    elif source.startswith("projector:"):
        from robossl.measure.subjects.projector import run_of

        run_of(source)
    else:
        from robossl.encoders.find import find_encoder, find_model

        find_encoder(Path(source)) or find_model(Path(source))


def is_foreign(source: str) -> bool:
    """Return whether the source is an ONNX file without a card.json beside it."""
    return source.endswith(".onnx") and "://" not in source and not Path(source).with_name("card.json").is_file()
