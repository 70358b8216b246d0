"""Find out whether a server is unavailable, or cannot be reached because of TLS settings."""

from __future__ import annotations

import re
import socket
from typing import Literal
from urllib.parse import unquote

from robossl_client.channel import Tls
from robossl_client.errors import DeniedError, RequestError, ServingError, UnavailableError

# This matches grpc's text if the server accepted the connection and then closed it.
# In this case either the server speaks TLS and the client does not, or the server wants a client certificate.
# In TLS 1.3 the server closes only after the client's handshake, so grpc does not learn that a certificate is missing.
_CUT = re.compile(r"failed to connect .*ipv[46]:(\S+):(\d+): .*(closed|reset|broken pipe)", re.IGNORECASE)
_NOT_REACHED = re.compile(r"failed to connect|errors resolving|DNS resolution failed", re.IGNORECASE)
_PROBE_S = 1.0
_Speaks = Literal["no TLS", "TLS", "TLS with client certificates"]


def explain(error: UnavailableError, tls: Tls | None) -> ServingError:
    """Return the error with advice, or a DeniedError or RequestError if TLS is the reason.

    If grpc cannot know the reason, connect once more to find out. Each step of this second connection
    (connect, handshake, read) blocks for up to a second.
    """
    details = str(error)
    if tls is not None and (said := _by_words(details, tls)) is not None:
        return said
    cut = _CUT.search(details)
    if cut is None:
        return _with_advice(error)
    speaks = _probe(unquote(cut[1]).strip("[]"), int(cut[2]))
    if tls is None and speaks != "no TLS":
        return DeniedError(
            "the server speaks TLS only; pass the authority of its certificate (--ca FILE, in Python tls=Tls(ca=...))"
        )
    if tls is not None and speaks == "TLS with client certificates":
        return DeniedError(
            "the server asks for a client certificate; pass --cert and --key, in Python Tls(cert=..., key=...)"
            if tls.cert is None
            else "the server does not accept the client certificate (--cert, in Python Tls(cert=...)): it is signed by "
            "another authority than the server's --client-ca, or expired; bring one that is valid"
        )
    return _with_advice(error)


def _with_advice(error: UnavailableError) -> UnavailableError:
    if not _NOT_REACHED.search(str(error)):
        return error
    return UnavailableError(
        f"no server is reached: {error}; start `robossl serve` there, or check host, port, --host and the firewall"
    )


def _by_words(details: str, tls: Tls) -> ServingError | None:
    if found := re.search(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)", details):
        return DeniedError(
            f"the server's certificate is not trusted ({found[1]}); pass the authority that signed it "
            "(--ca FILE, in Python Tls(ca=...)), or give the server a valid one"
        )
    if "Hostname Verification Check failed" in details:
        wanted = tls.server_name or "the target's host"
        return DeniedError(
            f"the server's certificate is not for {wanted}; connect by a name in it, or in Python pass one as "
            "Tls(server_name=...)"
        )
    if "WRONG_VERSION_NUMBER" in details:
        return DeniedError(
            "the server speaks no TLS; leave out --ca (in Python tls=), or start it with --tls-cert and --tls-key"
        )
    if "Failed to create security handshaker" in details:
        return RequestError("tls= cannot be used: ca, cert and key must be PEM texts, and the key that of the cert")
    if re.search(r"(tls|ssl) handshake failed", details, re.IGNORECASE):
        return DeniedError(f"the server and the client agree on no TLS ({details})")
    return None


def _probe(host: str, port: int) -> _Speaks:
    """Find out whether a server speaks TLS, and whether it wants client certificates.

    Try a TLS handshake without client certificate. The handshake does not verify the server, and no data is sent
    afterwards.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    has_shaken = False
    try:
        with socket.create_connection((host, port), timeout=_PROBE_S) as plain, context.wrap_socket(plain) as secure:
            has_shaken = True
            # A server that wants a client certificate closes the connection; other TLS servers send HTTP/2 settings.
            return "TLS" if secure.recv(1) else "TLS with client certificates"
    except TimeoutError:
        return "TLS" if has_shaken else "no TLS"
    except ssl.SSLError as error:
        is_alert = "ALERT" in (error.reason or "")
        return "TLS with client certificates" if has_shaken or is_alert else "no TLS"
    except OSError:
        return "TLS with client certificates" if has_shaken else "no TLS"
