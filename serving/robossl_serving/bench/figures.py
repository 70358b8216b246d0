"""Figures (numbers) that sum up a load test, for each class of clients: control (robots) and batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from robossl_serving.bench.trace import Trace
from robossl_serving.requests import Priority


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of times in milliseconds; 0 if there are no times."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles:
        """Return the percentiles, in milliseconds, of times that are given in seconds.

        >>> Percentiles.of([0.001, 0.002, 0.003])
        Percentiles(p50=2.0, p95=2.9, p99=2.98)
        """
        values = np.fromiter(seconds, float)
        if not len(values):
            return cls(0.0, 0.0, 0.0)
        p50, p95, p99 = (round(float(each), 4) for each in np.percentile(values * 1e3, (50, 95, 99)))
        return cls(p50, p95, p99)

    def __str__(self) -> str:
        return f"{self.p50:.2f} / {self.p95:.2f} / {self.p99:.2f}"


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures (numbers) of all clients of one class together: control (robots) or batch."""

    clients: int
    sent_per_s: float  # number of frames sent per second
    goodput_per_s: float  # number of frames served per second
    latency_ms: Percentiles  # time from sending to reply
    age_ms: Percentiles  # time from capture to reply
    server_ms: Percentiles  # part of `latency_ms`: time in the server
    queue_ms: Percentiles  # part of `server_ms`: time in the queue
    infer_ms: Percentiles  # part of `server_ms`: time in the encoder
    jain: float  # Jain's fairness index; 1 if all clients were served equally
    served: tuple[int, ...]  # number of served frames of each client
    lost: dict[str, int]  # number of lost frames by reason


def figures_of(traces: Sequence[Trace], kind: Priority) -> Figures | None:
    """Return the figures of one class of clients: control (robots) or batch. None if there are no such clients."""
    mine = [trace for trace in traces if trace.kind == kind]
    if not mine:
        return None
    replies = [reply for trace in mine for reply in trace.replies]
    seconds = mine[0].until_s - mine[0].from_s
    served = tuple(trace.frames_served for trace in mine)
    return Figures(
        clients=len(mine),
        sent_per_s=round(sum(trace.num_sent * trace.num_frames for trace in mine) / seconds, 2),
        goodput_per_s=round(sum(served) / seconds, 2),
        latency_ms=Percentiles.of(reply.latency_s for reply in replies),
        age_ms=Percentiles.of(reply.age_s for reply in replies),
        server_ms=Percentiles.of(reply.server_s for reply in replies),
        queue_ms=Percentiles.of(reply.queue_s for reply in replies),
        infer_ms=Percentiles.of(reply.infer_s for reply in replies),
        jain=round(jain_index(served), 4),
        served=served,
        lost=_lost(mine),
    )


def jain_index(counts: Sequence[float]) -> float:
    """Return Jain's fairness index: 1 if all counts are equal or 0, 1/n if only one of n counts is not 0.

    >>> jain_index([5, 5, 5, 5]), jain_index([8, 0, 0, 0])
    (1.0, 0.25)
    """
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else 1.0


def _lost(traces: Sequence[Trace]) -> dict[str, int]:
    lost: dict[str, int] = {}
    for trace in traces:
        known = sum(count for reason, count in trace.num_lost.items() if reason != "skipped")
        # A stream gives no reason for a lost frame. So frames with neither reply nor reason count as dropped.
        rest = {"dropped": trace.num_sent - len(trace.replies) - known}
        for reason, count in (trace.num_lost | rest).items():
            if count > 0:
                lost[reason] = lost.get(reason, 0) + count
    return lost
