"""An encoder that a server has, `grpc://host:port/model`: what is probed is what robots get."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robossl.probes.subjects.ours import from_encode
from robossl.probes.subjects.probed import Output, Probed, same_outputs
from robossl.served_encoder import DEADLINE_MS, ServedEncoder


def open_served(
    source: str,
    *,
    outputs: Sequence[Output],
    token: Path | None = None,
    ca: Path | None = None,
    deadline_ms: float = DEADLINE_MS,
) -> Probed:
    """Connect to a server; its encoder is pinned, so that another one in its place is an error.

    Args:
        source: grpc://host:port/model.
        outputs: What is wanted of it; a dense map is left out if the encoder has none.
        token: File with the server's token.
        ca: PEM file of the authority that signed the server's certificate; it turns encryption on.
        deadline_ms: How long a call may take.

    Raises:
        InputError: no such address, model, output or file, or the server wants another token.
        ResourceError: no server answers.
    """
    served = ServedEncoder(
        source, lambda card: same_outputs(outputs, card.outputs), token=token, ca=ca, deadline_ms=deadline_ms
    )
    return from_encode(served, source, kind="grpc", outputs=outputs)
