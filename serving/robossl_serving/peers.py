"""Peers: which callers are on the server's own host."""

from __future__ import annotations


def is_loopback(peer: str) -> bool:
    """Whether a peer, as grpc names it, is on this host.

    >>> is_loopback("ipv4:127.0.0.1:40312"), is_loopback("ipv6:%5B::1%5D:40312"), is_loopback("ipv4:10.0.0.7:1")
    (True, True, False)
    """
    return peer.startswith(("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:"))
