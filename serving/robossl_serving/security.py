"""Security: TLS, client certificates, and bearer tokens for clients and administrators."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from robossl_client.wire import path

from robossl.encoders.credentials import read_bytes, read_token
from robossl.errors import InputError
from robossl_serving.metrics import Metrics
from robossl_serving.peers import is_loopback

ADMIN_CALLS = frozenset(map(path, ("RepositoryModelLoad", "RepositoryModelUnload")))
_SCHEME = re.compile("^bearer +", re.IGNORECASE)  # RFC 9110: schemes are case-insensitive
_OPEN_CALLS = frozenset(("/grpc.health.v1.Health/Check",))  # calls that need no token, because Kubernetes sends none


@dataclass(frozen=True, slots=True)
class Security:
    """Files with certificates and tokens.

    Without an admin token, only clients on this host may load and unload models.
    """

    tls_cert: Path | None = None  # PEM file with the server's certificate and its chain
    tls_key: Path | None = None
    client_ca: Path | None = None  # PEM file of the authority that must have signed the clients' certificates (mTLS)
    token: Path | None = None  # file with the token that clients must send
    admin_token: Path | None = None  # file with the token for loading and unloading models

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return grpc's credentials for TLS, or None without TLS.

        Raises:
            InputError: a file is missing, or only one of certificate and key is given.
        """
        if self.tls_cert is None and self.tls_key is None and self.client_ca is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise InputError("TLS needs both --tls-cert and --tls-key, also with --client-ca")
        pair = (read_bytes(self.tls_key), read_bytes(self.tls_cert))
        ca = None if self.client_ca is None else read_bytes(self.client_ca)
        return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)

    def interceptors(self, metrics: Metrics) -> list[Any]:
        """Return the interceptor that checks tokens and counts refused calls in `metrics`.

        Without an admin token, the interceptor lets only clients on this host load and unload models.

        Raises:
            InputError: a token file is missing or empty.
        """
        return [_Gate(_token(self.token), _token(self.admin_token), metrics)]


class _Gate:
    """Checks the token of each call, then passes the call on or refuses it; implements grpc.ServerInterceptor."""

    def __init__(self, token: bytes | None, admin_token: bytes | None, metrics: Metrics) -> None:
        self._token = token
        self._admin_token = admin_token
        self._metrics = metrics
        unauthenticated, denied = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
        self._unauthenticated = self._refuser(
            unauthenticated,
            "the token is missing or wrong; pass the server's (token=, --token, or header authorization: Bearer ...)",
        )
        self._admin_only = self._refuser(denied, "this call needs the admin token")

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        is_admin = details.method in ADMIN_CALLS
        if not (is_admin or self._token) or details.method in _OPEN_CALLS:
            return continuation(details)
        sent = next((value for key, value in details.invocation_metadata if key == "authorization"), "")
        sent_token = _SCHEME.sub("", sent).encode() if isinstance(sent, str) else b""
        if self._admin_token and hmac.compare_digest(sent_token, self._admin_token):
            return continuation(details)
        if self._token and not hmac.compare_digest(sent_token, self._token):
            return self._unauthenticated
        if is_admin and self._admin_token:
            return self._admin_only
        return self._on_this_host(continuation(details)) if is_admin else continuation(details)

    def _on_this_host(self, handler: Any) -> Any:
        def guarded(request: bytes, context: Any) -> Any:
            if not is_loopback(context.peer()):
                code = grpc.StatusCode.PERMISSION_DENIED
                self._metrics.refuse(code)
                context.abort(code, "this server has no admin token, so this call is allowed from its own host only")
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)

    def _refuser(self, code: grpc.StatusCode, message: str) -> Any:
        def refuse(_: Any, context: Any) -> None:
            self._metrics.refuse(code)
            context.abort(code, message)

        # This handler also refuses unary calls, because on the wire a unary call is a stream of one message.
        return grpc.stream_stream_rpc_method_handler(refuse)


def _token(file: Path | None) -> bytes | None:
    if file is None:
        return None
    return read_token(file).encode()
