"""Limits on one call, on one client, and on all clients together."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server; a call over a limit is refused before it uses much time or memory."""

    message_bytes: int = 32 * MIB  # compressed, and again decompressed; also of images in shared memory
    decoded_bytes: int = 64 * MIB  # of all decoded frames of a call
    scans: int = 64  # of one JPEG; image encoders write about ten
    scan_pixels: int = 2**28  # of all scans of a call: 12 scans of the largest call
    held_message_bytes: int = 512 * MIB  # messages of all requests in the server
    held_pixel_bytes: int = 1024 * MIB  # decoded pixels of all requests in the server
    parameters: int = 64
    typed_values: int = 2**18  # typed contents cost 50 ns a value; frames belong in raw_input_contents
    name_chars: int = 128  # of a robot, a camera or an id
    waiting: int = 64  # requests of one priority waiting for one encoder
    streams: int = 256
    streams_per_client: int = 8
    unread_replies: int = 16  # of one stream; beyond it the server reads no more requests of that stream
    control_deadline_ms: int = 1000  # if the client sets none
    batch_deadline_ms: int = 60_000
    regions: int = 64  # of shared memory
