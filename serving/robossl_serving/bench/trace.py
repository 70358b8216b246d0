"""Trace: the frames that one client sent, and their replies."""

from __future__ import annotations

from dataclasses import dataclass, field

from robossl_client.messages import Reply

from robossl_serving.requests import Priority


@dataclass(frozen=True, slots=True)
class ServedFrame:
    """The times of one reply."""

    at_s: float  # time of the reply, from the start of the trace
    latency_s: float  # time from sending to reply
    age_s: float  # time from capture to reply
    server_s: float  # time in the server, which includes `queue_s` and `infer_s`
    queue_s: float
    infer_s: float


@dataclass(slots=True)
class Trace:
    """Record of a client from `from_s` until `until_s` (time.monotonic()); earlier frames are ignored as warm-up."""

    kind: Priority
    name: str
    from_s: float
    until_s: float
    num_frames: int = 1  # number of frames in each call
    num_sent: int = 0  # number of sent calls, or of frames sent in a stream
    replies: list[ServedFrame] = field(default_factory=list)
    num_lost: dict[str, int] = field(default_factory=dict)  # number of lost calls or frames by reason, if known

    @property
    def frames_served(self) -> int:
        """Number of answered frames."""
        return len(self.replies) * self.num_frames

    def sent(self, captured_s: float) -> None:
        """Record a sent frame."""
        self.num_sent += self._counts(captured_s)

    def served(self, captured_s: float, sent_s: float, reply: Reply) -> None:
        """Record a reply."""
        at_s = captured_s + reply.age_s
        # Ignore replies after the end. Their times would be too short, because no newer frames compete with them.
        if not self._counts(captured_s) or at_s > self.until_s:
            return
        self.replies.append(
            ServedFrame(
                at_s=at_s - self.from_s,
                latency_s=at_s - sent_s,
                age_s=reply.age_s,
                server_s=reply.server_us / 1e6,
                queue_s=reply.queue_us / 1e6,
                infer_s=reply.infer_us / 1e6,
            )
        )

    def lost(self, captured_s: float, reason: str) -> None:
        """Record that a frame got no reply, and why."""
        if self._counts(captured_s):
            self.num_lost[reason] = self.num_lost.get(reason, 0) + 1

    def skipped(self, captured_s: float) -> None:
        """Record a frame that was not sent, because a newer frame was already due."""
        self.lost(captured_s, "skipped")

    def _counts(self, captured_s: float) -> bool:
        return self.from_s <= captured_s < self.until_s
