"""Open a channel to a server; if the connection breaks, grpc connects again by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import grpc

from robossl_client.errors import RequestError

MIB = 2**20
FIRST_WAIT_S, LONGEST_WAIT_S = 0.01, 0.2  # first and longest wait between retries while the server is unavailable
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # one connection per client, so that no client waits for another's frames
    ("grpc.max_receive_message_length", 256 * MIB),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # grpc also uses this as the time limit of a connection attempt. It is long, because TLS is slow on slow links.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # The client waits at most a second between connection attempts, so it soon finds a restarted server.
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A ping after 10 s of silence, whose answer must come within 4 s, detects a dead server within 14 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),  # otherwise grpc waits a minute, even with `keepalive_timeout_ms`
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates and key, as PEM texts, for an encrypted connection."""

    ca: bytes | None = None  # certificate of the authority to trust; None for the system's authorities
    cert: bytes | None = None  # the client's certificate, if the server asks for one
    key: bytes | None = None
    server_name: str | None = None  # name in the server's certificate, if the target's name differs

    def check(self) -> None:
        """Check the PEM texts, because grpc ends the process if a text is unusable.

        Raises:
            RequestError: a text is empty or not bytes, or only one of `cert` and `key` is given.
        """
        for name, text in (("ca", self.ca), ("cert", self.cert), ("key", self.key)):
            if text is not None and (not isinstance(text, bytes) or not text):
                got = "nothing" if text == b"" else type(text).__name__
                raise RequestError(f"Tls({name}=) must be the PEM text as bytes, got {got}; read the file")
        if (self.cert is None) != (self.key is None):
            raise RequestError("Tls needs cert= and key= together: the client's certificate and its key")


def open_channel(target: str, tls: Tls | None, *, is_async: bool = False) -> Any:
    """Return a channel to `host:port`; the channel connects at the first call.

    Raises:
        RequestError: the target or the TLS texts cannot be used.
    """
    port = re.search(r":(\d+)$", target) if isinstance(target, str) else None
    if not isinstance(target, str) or not target or (port is not None and not 0 < int(port[1]) < 2**16):
        raise RequestError(f"the target must be host:port with a port of 1 to 65535, got {target!r}")
    if ":" not in target or target.endswith("]"):  # without a port, grpc would connect to port 443
        raise RequestError(
            f"the target must be host:port, got {target!r} without a port; a server without --port has {target}:8001"
        )
    module = grpc.aio if is_async else grpc
    if tls is None:
        return module.insecure_channel(target, options=_OPTIONS)
    if not isinstance(tls, Tls):
        raise RequestError(f"tls must be Tls(ca=..., cert=..., key=...) or None, got {type(tls).__name__}")
    tls.check()
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else _OPTIONS
    return module.secure_channel(target, grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert), options=options)


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that every call sends: the token, or nothing if there is no token.

    Raises:
        RequestError: the token has characters that a header must not have.
    """
    if token is None or token == "":
        return ()
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]([ -~]*[!-~])?", token):
        raise RequestError(
            "the token must be one line of printable ASCII without spaces around it; "
            "use .strip() on one read from a file"
        )
    return (("authorization", f"Bearer {token}"),)
