"""Limits: what one call, one client and all of them may ask for."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on calls; a call beyond one is refused before it costs much."""

    message_bytes: int = 32 * MIB  # as it arrives, and again once it is decompressed; of images in shared memory too
    decoded_bytes: int = 64 * MIB  # of all frames of a call, decoded
    scans: int = 64  # of a JPEG; encoders write about ten
    scan_pixels: int = 2**28  # of all scans of a call: the largest call, each pixel twelve times
    held_message_bytes: int = 512 * MIB  # of all requests that the server holds, as they came
    held_pixel_bytes: int = 1024 * MIB  # ... and decoded, until they are answered
    parameters: int = 64
    typed_values: int = 2**18  # typed contents cost 50 ns a value; frames belong into raw_input_contents
    name_chars: int = 128  # of a robot, a camera, an id
    waiting: int = 64  # requests of one class waiting for one encoder
    streams: int = 256
    streams_per_client: int = 8
    unread_replies: int = 16  # of one stream; a client that does not read is cut off
    control_deadline_ms: int = 1000  # where the caller sets none
    batch_deadline_ms: int = 60_000
    regions: int = 64  # of shared memory
