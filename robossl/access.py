"""Access: what lets a caller in to a guarded server, out of files, so that no secret stands in a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robossl.errors import InputError


def access(token: Path | None, ca: Path | None) -> dict[str, Any]:
    """The options of an `EncoderClient` for a server with a token and TLS.

    Args:
        token: File with the server's token.
        ca: PEM file of the authority that signed the server's certificate; the connection is encrypted then.

    Raises:
        InputError: a file that cannot be read.
    """
    from robossl_client.channel import Tls

    return {
        "token": None if token is None else read_bytes(token).decode().strip(),
        "tls": None if ca is None else Tls(ca=read_bytes(ca)),
    }


def read_bytes(file: Path) -> bytes:
    """The contents of a file that was named by its path.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror}); pass a file that exists") from error
