"""Limits on one call, on one client, and on all clients together."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server; a call over a limit is refused before it uses much time or memory."""

    message_bytes: int = 32 * MIB  # size of a message, also after decompression, and of images in shared memory
    decoded_bytes: int = 64 * MIB  # size of all decoded frames of a call
    scans: int = 64  # passes over the pixels that one JPEG may need; image encoders write about ten
    scan_pixels: int = 2**28  # pixels in all scans of a call; allows 12 scans of the largest call
    held_message_bytes: int = 512 * MIB  # bytes of the messages of all requests in the server
    held_pixel_bytes: int = 1024 * MIB  # bytes of the decoded pixels of all requests in the server
    parameters: int = 64
    typed_values: int = 2**18  # values in typed contents; limited, because reading each value takes 50 ns
    name_chars: int = 128  # length of a robot's or camera's name, or of an id
    waiting: int = 64  # batch requests that may wait for one encoder; control requests: `waiting` + `streams`
    streams: int = 256
    streams_per_client: int = 8
    unread_replies: int = 16  # requests that the server reads from a stream before the client takes the replies
    control_deadline_ms: int = 1000  # deadline of a control request if the client sets none
    batch_deadline_ms: int = 60_000
    regions: int = 64  # registered regions of shared memory
