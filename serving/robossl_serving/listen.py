"""Listen on all addresses of a host, or on none.

This module makes checks that grpc lacks. Without these checks, grpc would listen on only some of the addresses
and report no error. It would also take a port modulo 65536, and replace the socket file of a running server.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable

from robossl.errors import InputError, ResourceError

_LOOPBACK = ("127.0.0.1", "::1")  # addresses of localhost (RFC 6761), even if /etc/hosts has others
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_unix(host: str) -> bool:
    """Return whether a host is a unix socket: unix:PATH, unix:///PATH or unix-abstract:NAME.

    >>> is_unix("unix:/run/robossl.sock"), is_unix("unix-7")
    (True, False)
    """
    return host.startswith(("unix:", "unix-abstract:"))


def is_local(host: str) -> bool:
    """Return whether a host is reachable from this machine only.

    >>> is_local("127.0.0.1"), is_local("[::1]"), is_local("unix:/run/robossl.sock"), is_local("0.0.0.0")
    (True, True, True, False)

    Raises:
        InputError: the host is neither an address nor a known name.
    """
    return is_unix(host) or all(ipaddress.ip_address(each).is_loopback for each in resolve(host))


def resolve(host: str) -> list[str]:
    """Look up the addresses of a host, IPv4 first.

    Raises:
        InputError: the host is neither an address nor a known name.
    """
    name = host.removeprefix("[").removesuffix("]")
    if name == "localhost":
        return list(_LOOPBACK)
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM) if name else []
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise InputError(
            f"--host {host!r} is neither an address nor a known name; pass 127.0.0.1, 0.0.0.0, another address "
            "of this machine, or unix:PATH"
        )
    return list(dict.fromkeys(str(each[4][0]) for each in sorted(found, key=lambda each: each[0] != socket.AF_INET)))


def listen(host: str, port: int, open_port: Callable[[str], int]) -> tuple[int, list[str]]:
    """Listen on all addresses of a host; return the port and the addresses.

    Args:
        host: An address, a name, or a unix socket.
        port: A port; 0 for any free port.
        open_port: Function that listens on an address, written as grpc wants it, and returns the port. On failure it
            returns 0 or raises RuntimeError.

    Raises:
        InputError: the host is unknown.
        ResourceError: an address is taken, or none of the addresses belongs to this machine.
    """
    if is_unix(host):
        _check_unix(host)
        _open(host, open_port)
        return port, [host]
    addresses = [address for address in resolve(host) if _is_free(address, port)]
    if not addresses:
        raise ResourceError(
            f"cannot listen on {format_address(host, port)}: it is not this machine's; choose another --host"
        )
    for address in addresses:
        port = _open(format_address(address, port), open_port)
    return port, addresses


def format_address(host: str, port: int) -> str:
    """Format an address as clients pass it.

    >>> format_address("127.0.0.1", 8001), format_address("::1", 8001), format_address("unix:/run/robossl.sock", 8001)
    ('127.0.0.1:8001', '[::1]:8001', 'unix:/run/robossl.sock')
    """
    if is_unix(host):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _open(address: str, open_port: Callable[[str], int]) -> int:
    try:
        port = open_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ResourceError(
            f"cannot listen on {address}: grpc's lines above say why; choose another --host or --port, or with "
            "TLS another certificate and key"
        )
    return port


def _is_free(address: str, port: int) -> bool:
    """Return whether a port of an address is free; False if the address does not belong to this machine.

    Raises:
        ResourceError: the port is taken, or cannot be used for another reason.
    """
    with contextlib.ExitStack() as stack:
        try:
            probe = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # grpc sets this option too
            probe.bind((address, port))
        except OSError as error:
            if error.errno in _NOT_HERE:
                return False
            why = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror
            raise ResourceError(
                f"cannot listen on {format_address(address, port)}: {why}; choose another --port"
            ) from error
    return True


def _check_unix(host: str) -> None:
    """Check that no server listens on a unix socket, because grpc would replace the socket file.

    Raises:
        ResourceError: a server listens on the socket.
    """
    kind, _, name = host.partition(":")
    place = f"\0{name}" if kind == "unix-abstract" else name.removeprefix("//")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(place)
        except (OSError, ValueError):
            return
    raise ResourceError(f"cannot listen on {host}: it is taken; choose another --host")
