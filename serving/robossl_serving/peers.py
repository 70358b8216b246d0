"""Distinguish clients on the server's own host from remote clients."""

from __future__ import annotations


def is_loopback(peer: str) -> bool:
    """Return whether a client is on this host; `peer` is its address as grpc writes it.

    >>> is_loopback("ipv4:127.0.0.1:40312"), is_loopback("ipv6:%5B::1%5D:40312"), is_loopback("ipv4:10.0.0.7:1")
    (True, True, False)
    """
    return peer.startswith(("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:"))
