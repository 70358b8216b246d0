"""Counts and times of the requests to one model version, cheap enough to update for every request.

The call ModelStatistics and the Prometheus metrics both return these counts and times.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field

from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard

from robossl_serving.requests import Outcome, Priority, Request

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class TimeHistogram:
    """A histogram of times in seconds."""

    sum_s: float = 0.0
    # Number of values in each bin. Each bound in BOUNDS_S is the upper end of a bin; the last bin has no upper end.
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def add(self, seconds: float) -> None:
        """Add a time to the histogram."""
        self.sum_s += seconds
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1


@dataclass(slots=True)
class RunCount:
    """Number and total time of all runs with the same batch size."""

    count: int = 0
    sum_s: float = 0.0


@dataclass(slots=True)
class PriorityStatistics:
    """Counts and times of the requests of one priority."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)
    total: TimeHistogram = field(default_factory=TimeHistogram)  # time from arrival to reply
    decode: TimeHistogram = field(default_factory=TimeHistogram)
    queue: TimeHistogram = field(default_factory=TimeHistogram)
    run: TimeHistogram = field(default_factory=TimeHistogram)
    age: TimeHistogram = field(default_factory=TimeHistogram)  # time from capture to reply
    failed_s: float = 0.0
    num_frames: int = 0


class ModelStatistics:
    """Counts and times of the requests to one model version."""

    def __init__(self, card: EncoderCard) -> None:
        self.name, self.version = card.name, str(card.version)
        self.lock = threading.Lock()  # hold this lock to read the fields
        self.kinds = {"control": PriorityStatistics(), "batch": PriorityStatistics()}
        self.runs: dict[int, RunCount] = {}  # counts of runs, by number of frames in a run
        self._last_s = 0.0

    def count_run(self, num_frames: int, run_s: float) -> None:
        """Count a run of the encoder."""
        with self.lock:
            run_count = self.runs.setdefault(num_frames, RunCount())
            run_count.count += 1
            run_count.sum_s += run_s

    def count_answered(self, request: Request, *, decoded_s: float) -> None:
        """Count a request with a known outcome."""
        assert request.outcome is not None
        now_s = time.monotonic()
        with self.lock:
            kind = self.kinds["batch" if request.robot is None else "control"]
            kind.outcomes[request.outcome] = kind.outcomes.get(request.outcome, 0) + 1
            if request.outcome == "failed":
                kind.failed_s += now_s - request.arrived_s
            if request.outcome != "served":
                return
            kind.total.add(now_s - request.arrived_s)
            kind.decode.add(decoded_s - request.arrived_s)
            kind.queue.add(request.started_s - decoded_s)
            kind.run.add(request.run_s)
            kind.age.add(now_s - request.captured_s)
            kind.num_frames += len(request.frames)
            self._last_s = now_s

    def count_dropped(self, priority: Priority, outcome: Outcome) -> None:
        """Count a request that ended before it was queued."""
        with self.lock:
            outcomes = self.kinds[priority].outcomes
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    def to_message(self) -> pb.ModelStatistics:
        """Return the statistics as a message of the protocol.

        Each frame counts as an inference, and each run of the encoder as an execution. Superseded, shed and cancelled
        requests do not count as failed.
        """
        with self.lock:
            kinds = self.kinds.values()
            failed = sum(kind.outcomes.get("failed", 0) for kind in kinds)
            ago_s = time.monotonic() - self._last_s
            return pb.ModelStatistics(
                name=self.name,
                version=self.version,
                last_inference=int((time.time() - ago_s) * 1000) if self._last_s else 0,
                inference_count=sum(kind.num_frames for kind in kinds),
                execution_count=sum(run_count.count for run_count in self.runs.values()),
                inference_stats=pb.InferStatistics(
                    success=_duration(*(kind.total for kind in kinds)),
                    fail=pb.StatisticDuration(count=failed, ns=_ns(sum(kind.failed_s for kind in kinds))),
                    queue=_duration(*(kind.queue for kind in kinds)),
                    compute_input=_duration(*(kind.decode for kind in kinds)),
                    compute_infer=_duration(*(kind.run for kind in kinds)),
                ),
                batch_stats=[
                    pb.InferBatchStatistics(
                        batch_size=size,
                        compute_infer=pb.StatisticDuration(count=run_count.count, ns=_ns(run_count.sum_s)),
                    )
                    for size, run_count in sorted(self.runs.items())
                ],
            )


def _duration(*times: TimeHistogram) -> pb.StatisticDuration:
    return pb.StatisticDuration(
        count=sum(sum(each.counts) for each in times), ns=_ns(sum(each.sum_s for each in times))
    )


def _ns(seconds: float) -> int:
    return max(0, int(seconds * 1e9))
