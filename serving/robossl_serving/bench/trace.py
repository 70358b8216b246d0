"""Trace: what one client sent and got, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, field

from robossl_client.messages import Reply

from robossl_serving.requests import Priority


@dataclass(frozen=True, slots=True)
class ServedFrame:
    """One reply."""

    at_s: float  # from the begin
    latency_s: float  # from sending to the reply
    age_s: float  # from capture to the reply
    server_s: float  # from the request's arrival to its reply, at the server, and of that:
    queue_s: float
    infer_s: float


@dataclass(slots=True)
class Trace:
    """Of one client, between two times of time.monotonic(); frames taken before count as warm-up."""

    kind: Priority
    name: str
    from_s: float
    until_s: float
    num_frames: int = 1  # of one call
    num_sent: int = 0  # calls, or frames of a stream
    replies: list[ServedFrame] = field(default_factory=list)
    num_lost: dict[str, int] = field(default_factory=dict)  # by reason, as far as it is known

    @property
    def frames_served(self) -> int:
        """Frames that were answered."""
        return len(self.replies) * self.num_frames

    def sent(self, captured_s: float) -> None:
        """Note a frame that is sent."""
        self.num_sent += self._counts(captured_s)

    def served(self, captured_s: float, sent_s: float, reply: Reply) -> None:
        """Note a reply."""
        at_s = captured_s + reply.age_s
        if not self._counts(captured_s) or at_s > self.until_s:  # nothing newer overtakes what still waits at the end
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
        """Note a frame that is not answered."""
        if self._counts(captured_s):
            self.num_lost[reason] = self.num_lost.get(reason, 0) + 1

    def skipped(self, captured_s: float) -> None:
        """Note a frame that was not asked for: a newer one was there when its turn came."""
        self.lost(captured_s, "skipped")

    def _counts(self, captured_s: float) -> bool:
        return self.from_s <= captured_s < self.until_s
