"""Listen: from a host and a port to the addresses that a server listens on, all of them or none.

grpc alone is content with any one of a name's addresses, takes a port modulo 65536, and takes over a socket file that
another server listens on.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable

from robossl.errors import InputError, ResourceError

_LOOPBACK = ("127.0.0.1", "::1")  # what resolvers take localhost for, whatever /etc/hosts says (RFC 6761)
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_unix(host: str) -> bool:
    """Whether a host is a socket of this machine, as grpc spells it: unix:PATH, unix:///PATH or unix-abstract:NAME.

    >>> is_unix("unix:/run/robossl.sock"), is_unix("unix-7")
    (True, False)
    """
    return host.startswith(("unix:", "unix-abstract:"))


def is_local(host: str) -> bool:
    """Whether only this machine reaches a host.

    >>> is_local("127.0.0.1"), is_local("[::1]"), is_local("unix:/run/robossl.sock"), is_local("0.0.0.0")
    (True, True, True, False)

    Raises:
        InputError: it is no address, and no name that is known here.
    """
    return is_unix(host) or all(ipaddress.ip_address(each).is_loopback for each in resolve(host))


def resolve(host: str) -> list[str]:
    """Look up the addresses of a host, IPv4 first.

    Raises:
        InputError: it is no address, and no name that is known here.
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
            f"--host {host!r} is no address and no name that is known here; pass 127.0.0.1, 0.0.0.0, another address "
            "of this machine, or unix:PATH"
        )
    return list(dict.fromkeys(str(each[4][0]) for each in sorted(found, key=lambda each: each[0] != socket.AF_INET)))


def listen(host: str, port: int, open_port: Callable[[str], int]) -> tuple[int, list[str]]:
    """Listen on all addresses of a host; returns the port and the addresses.

    Args:
        host: An address, a name, or a unix socket.
        port: 0 for any free one.
        open_port: Listens on an address as grpc spells it; returns the port, 0 or an error where it cannot.

    Raises:
        InputError: there is no such host.
        ResourceError: an address is taken, or none is this machine's.
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
    """Spell an address as callers pass it.

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
        raise ResourceError(f"cannot listen on {address}; choose another --host or --port")
    return port


def _is_free(address: str, port: int) -> bool:
    """Whether an address can be listened on; False: it is not this machine's.

    Raises:
        ResourceError: it is taken.
    """
    with contextlib.ExitStack() as stack:
        try:
            probe = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as grpc does
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
    """Check that nobody listens on a socket; grpc removes the file of another server, which then is not found.

    Raises:
        ResourceError: somebody does.
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
