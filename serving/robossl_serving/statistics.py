"""Statistics: what ModelStatistics answers, summed per version; Prometheus is told the same."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard

from robossl_serving.metrics import Metrics
from robossl_serving.requests import Request


@dataclass(slots=True)
class _Sum:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def message(self) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=self.count, ns=int(self.seconds * 1e9))


@dataclass(slots=True)
class _Sums:
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    queue: _Sum = field(default_factory=_Sum)
    decode: _Sum = field(default_factory=_Sum)
    run: _Sum = field(default_factory=_Sum)


class Statistics:
    """Counts and times of one version."""

    def __init__(self, card: EncoderCard, metrics: Metrics) -> None:
        self._name, self._version = card.name, str(card.version)
        self._metrics = metrics
        self._lock = threading.Lock()
        self._sums = _Sums()
        self._turns: dict[int, _Sum] = {}  # by number of frames
        self._num_frames = 0
        self._last_ms = 0

    def ran(self, num_frames: int, run_s: float) -> None:
        """Count a run."""
        with self._lock:
            self._turns.setdefault(num_frames, _Sum()).add(run_s)
        self._metrics.batch.labels(self._name, self._version).observe(num_frames)

    def answered(self, request: Request, *, decode_s: float) -> None:
        """Count a request whose outcome is known."""
        now_s = time.monotonic()
        with self._lock:
            if request.outcome == "served":
                self._sums.success.add(now_s - request.arrived_s)
                self._sums.queue.add(request.started_s - request.arrived_s)
                self._sums.decode.add(decode_s)
                self._sums.run.add(request.run_s)
                self._num_frames += len(request.frames)
                self._last_ms = int(time.time() * 1000)
            else:
                self._sums.fail.add(now_s - request.arrived_s)
        self._metrics.answered((self._name, self._version), request, now_s)

    def message(self) -> pb.ModelStatistics:
        """As the protocol has it; a frame is an inference, a run is an execution."""
        with self._lock:
            sums = self._sums
            return pb.ModelStatistics(
                name=self._name,
                version=self._version,
                last_inference=self._last_ms,
                inference_count=self._num_frames,
                execution_count=sum(turns.count for turns in self._turns.values()),
                inference_stats=pb.InferStatistics(
                    success=sums.success.message(),
                    fail=sums.fail.message(),
                    queue=sums.queue.message(),
                    compute_input=sums.decode.message(),
                    compute_infer=sums.run.message(),
                ),
                batch_stats=[
                    pb.InferBatchStatistics(batch_size=size, compute_infer=turns.message())
                    for size, turns in sorted(self._turns.items())
                ],
            )
