"""Send frames as one client, by calls or by a stream, and record frames and replies in the client's `Trace`."""

from __future__ import annotations

import time

from jaxtyping import UInt8
from numpy import ndarray
from robossl_client.client import EncoderClient
from robossl_client.errors import DeadlineError, OverloadedError, SupersededError, UnavailableError
from robossl_client.messages import Reply

from robossl_serving.bench.ticks import Ticks
from robossl_serving.bench.trace import Trace

_PASSING = (SupersededError, DeadlineError, OverloadedError, UnavailableError)
_LONGEST_REPLY_S = 5.0


def ask_one_by_one(client: EncoderClient, frames: UInt8[ndarray, "b h w 3"], trace: Trace, ticks: Ticks) -> Trace:
    """Send frames by calls, one at a time, until the end time of the trace; record the replies in the trace."""
    for captured_s in ticks.wait_by(_sleep):
        trace.sent(captured_s)
        sent_s = time.monotonic()
        try:
            reply = client.encode(frames, captured_s=captured_s)
        except _PASSING as error:
            trace.lost(captured_s, type(error).__name__)
        else:
            trace.served(captured_s, sent_s, reply)
    return trace


def ask_by_stream(client: EncoderClient, frames: UInt8[ndarray, "b h w 3"], trace: Trace, ticks: Ticks) -> Trace:
    """Send frames by a stream until the end time of the trace; take replies while waiting for the next frame."""
    sent: list[tuple[float, float]] = []  # times of capture and of sending, for each sent frame

    def note(reply: Reply | None) -> None:
        if reply is not None:
            trace.served(*sent[int(reply.frame_id) - 1], reply)

    def take_until(until_s: float) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            note(stream.take(wait_ms=left_s * 1e3))

    with client.latest() as stream:
        for captured_s in ticks.wait_by(take_until):
            trace.sent(captured_s)
            sent.append((captured_s, time.monotonic()))
            stream.send(frames, captured_s=captured_s)
            if ticks.is_closed_loop:
                note(stream.take(wait_ms=_LONGEST_REPLY_S * 1e3))
        take_until(trace.until_s)
    return trace


def _sleep(until_s: float) -> None:
    time.sleep(max(0.0, until_s - time.monotonic()))
