"""Read the token and the TLS certificates for a server from files, so that no command line contains a secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from robossl.errors import InputError


def read_credentials(
    token: Path | None, ca: Path | None, *, cert: Path | None = None, key: Path | None = None
) -> dict[str, Any]:
    """Return the arguments that make an `EncoderClient` send a token and encrypt the connection (TLS).

    Args:
        token: File with the token of the server; None to send no token.
        ca: PEM file of the authority that signed the certificate of the server. None turns encryption off.
        cert: PEM file of the client's own certificate, for a server that asks for one; needs `ca` and `key`.
        key: PEM file with the key of `cert`.

    Raises:
        InputError: a file cannot be read, contains no token or no certificate, or another file must be passed too.
    """
    from robossl_client.channel import Tls

    secrets: dict[str, Any] = {"token": None if token is None else read_token(token), "tls": None}
    if (cert, key) != (None, None) and None in (ca, cert, key):
        raise InputError("a client certificate needs --ca, --cert and --key; pass all three")
    if ca is not None:
        secrets["tls"] = Tls(
            ca=read_certificates(ca, option="--ca"),
            cert=None if cert is None else read_certificates(cert, option="--cert"),
            key=None if key is None or cert is None else read_key(key, cert, option="--key"),
        )
    return secrets


def read_token(file: Path) -> str:
    """Read a token: one line of printable ASCII, because it is sent in a header.

    Raises:
        InputError: the file cannot be read, is empty, or contains more than one line of printable ASCII.
    """
    token = read_bytes(file).strip()
    if not token:
        raise InputError(f"{file} is empty; write the token into it, for example `openssl rand -hex 32`")
    if not all(0x20 <= byte <= 0x7E for byte in token):
        raise InputError(
            f"{file} holds more than a token: it has {token.count(10) + 1} lines or characters beyond printable ASCII, "
            "which no header carries; write one line into it, for example `openssl rand -hex 32`"
        )
    return token.decode("ascii")


def read_certificates(file: Path, *, option: str) -> bytes:
    """Return the contents of a PEM file with certificates.

    The file is checked here, because grpc names neither the file nor the option when it cannot use a certificate.

    Raises:
        InputError: the file cannot be read, or its certificates are missing or damaged.
    """
    import ssl

    content = read_bytes(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        why = describe_pem(content, "CERTIFICATE")
        raise InputError(
            f"{option} {file} holds no certificate that can be used ({why}); pass a PEM file with a whole certificate"
        ) from error
    return content


def read_key(file: Path, cert: Path, *, option: str) -> bytes:
    """Return the contents of a PEM file with a private key, after checking that it is the key of a certificate.

    Raises:
        InputError: the file cannot be read, or holds no key, an encrypted key, or the key of another certificate.
    """

    def refuse_password() -> str:
        raise InputError(f"{option} {file} is encrypted, and nobody could type its password; pass a key without one")

    import ssl

    content = read_bytes(file)
    # A pipe cannot be read a second time, so its content is not checked.
    if not (file.is_file() and cert.is_file()):
        return content
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, file, password=refuse_password)
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise InputError(f"{option} {file} is not the key of {cert}; pass the two that belong together") from error
        raise InputError(
            f"{option} {file} holds no private key that can be used ({describe_pem(content, 'KEY')}); pass the PEM "
            f"file with the key of {cert}"
        ) from error
    return content


def describe_pem(content: bytes, wanted: str) -> str:
    """Describe why a PEM file cannot be used, for a message.

    >>> describe_pem(b"-----BEGIN PRIVATE KEY-----", "CERTIFICATE"), describe_pem(b"-----BEGIN PRIVATE KEY-----", "KEY")
    ('it holds a PRIVATE KEY', 'its PRIVATE KEY is damaged')
    """
    if found := re.search(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----", content):
        kind = found[1].decode()
        return f"its {kind} is damaged" if kind.endswith(wanted) else f"it holds a {kind}"
    return "it is no PEM file" if content.strip() else "it is empty"


def read_bytes(file: Path) -> bytes:
    """Return the contents of a file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror}); pass a file that exists") from error
