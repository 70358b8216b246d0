"""Limits on one call, on one client, and on all clients together."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server; a call over a limit is refused before it uses much time or memory."""

    # Maximum size of a message, also after decompression. The encoded images of a call in shared memory have the same
    # limit.
    message_bytes: int = 32 * MIB
    decoded_bytes: int = 64 * MIB  # maximum size of all decoded frames of a call
    scans: int = 64  # maximum number of passes over the pixels of a JPEG; JPEG encoders write about ten
    scan_pixels: int = 2**28  # maximum number of pixels in all scans of a call; allows 12 scans of the largest frames
    held_message_bytes: int = 512 * MIB  # maximum size of the messages of all requests in the server
    held_pixel_bytes: int = 1024 * MIB  # maximum size of the decoded pixels of all requests in the server
    parameters: int = 64
    typed_values: int = 2**18  # maximum number of values in typed contents; limited, because each takes 50 ns to read
    name_chars: int = 128  # maximum length of a robot's or camera's name, or of an id
    # At most `waiting` batch requests and `waiting` + `streams` control requests may wait for one encoder.
    waiting: int = 64
    streams: int = 256  # maximum number of open streams
    streams_per_client: int = 8
    unread_replies: int = 16  # maximum number of requests of a stream whose replies the client has not taken
    control_deadline_ms: int = 1000  # deadline of a control request if the client sets none
    batch_deadline_ms: int = 60_000
    regions: int = 64  # maximum number of registered regions of shared memory
