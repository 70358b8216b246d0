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

from robossl.encoders.credentials import read_certificates, read_key, read_token
from robossl.errors import InputError
from robossl_serving.peers import is_loopback
from robossl_serving.refusals import Refusals
from robossl_serving.refused import RefusedError

ADMIN_CALLS = frozenset(map(path, ("RepositoryModelLoad", "RepositoryModelUnload")))
_SCHEME = re.compile("^bearer +", re.IGNORECASE)  # RFC 9110: schemes are case-insensitive
_OPEN_CALLS = frozenset(("/grpc.health.v1.Health/Check",))  # calls that need no token, because Kubernetes sends none
_UNAUTHENTICATED = RefusedError(
    grpc.StatusCode.UNAUTHENTICATED,
    "the token is missing or wrong; pass the server's (token=, --token, or header authorization: Bearer ...)",
)
_ADMIN_ONLY = RefusedError(grpc.StatusCode.PERMISSION_DENIED, "this call needs the admin token")
_THIS_HOST_ONLY = RefusedError(
    grpc.StatusCode.PERMISSION_DENIED,
    "this server has no admin token, so this call is allowed from its own host only",
)


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
            InputError: a file is missing or damaged, or certificate and key do not belong together.
        """
        if self.tls_cert is None and self.tls_key is None and self.client_ca is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise InputError("TLS needs both --tls-cert and --tls-key, also with --client-ca")
        cert = read_certificates(self.tls_cert, option="--tls-cert")
        pair = (read_key(self.tls_key, self.tls_cert, option="--tls-key"), cert)
        ca = None if self.client_ca is None else read_certificates(self.client_ca, option="--client-ca")
        return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)

    def interceptors(self, refusals: Refusals) -> list[Any]:
        """Return the interceptor that checks tokens and adds refused calls to `refusals`.

        Without an admin token, the interceptor lets only clients on this host load and unload models.

        Raises:
            InputError: a token file is missing or empty.
        """
        return [_Gate(_token(self.token), _token(self.admin_token), refusals)]


class _Gate:
    """Checks the token of each call, then passes the call on or refuses it; implements grpc.ServerInterceptor."""

    def __init__(self, token: bytes | None, admin_token: bytes | None, refusals: Refusals) -> None:
        self._token = token
        self._admin_token = admin_token
        self._refusals = refusals

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        is_admin = details.method in ADMIN_CALLS
        if not (is_admin or self._token) or details.method in _OPEN_CALLS:
            return continuation(details)
        sent = next((value for key, value in details.invocation_metadata if key == "authorization"), "")
        sent_token = _SCHEME.sub("", sent).encode() if isinstance(sent, str) else b""
        if self._admin_token and hmac.compare_digest(sent_token, self._admin_token):
            return continuation(details)
        if self._token and not hmac.compare_digest(sent_token, self._token):
            return self._refuser(_UNAUTHENTICATED, details.method, token="wrong" if sent else "missing")
        if is_admin and self._admin_token:
            return self._refuser(_ADMIN_ONLY, details.method, token="not the admin's" if sent else "missing")
        return self._on_this_host(continuation(details), details.method) if is_admin else continuation(details)

    def _on_this_host(self, handler: Any, method: str) -> Any:
        def guarded(request: bytes, context: Any) -> Any:
            if not is_loopback(context.peer()):
                self._refuse(_THIS_HOST_ONLY, context, method, token="the server has none")
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)

    def _refuser(self, refused: RefusedError, method: str, *, token: str) -> Any:
        def refuse(_: Any, context: Any) -> None:
            self._refuse(refused, context, method, token=token)

        # This handler also refuses unary calls, because on the wire a unary call is a stream of one message.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _refuse(self, refused: RefusedError, context: Any, method: str, *, token: str) -> None:
        self._refusals.add(refused, context.peer(), call=method.rpartition("/")[2][:128], token=token)
        context.abort(refused.code, refused.message)


def _token(file: Path | None) -> bytes | None:
    if file is None:
        return None
    return read_token(file).encode()
