"""Metrics: what Prometheus scrapes, per model, version and class of request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from robossl_serving.requests import Request

_LABELS = ("model", "version", "kind")
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_FRAMES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All metrics of one server, in a registry of their own, so that two servers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, about: str) -> Histogram:
            return Histogram(name, about, _LABELS, buckets=_SECONDS, registry=self.registry)

        self.requests = Counter(
            "robossl_requests", "Requests by what became of them", (*_LABELS, "outcome"), registry=self.registry
        )
        self.superseded = Counter("robossl_superseded", "Frames replaced by newer", _LABELS, registry=self.registry)
        self.queue = histogram("robossl_queue_seconds", "From a frame's arrival to its run")
        self.run = histogram("robossl_infer_seconds", "The encoder's run")
        self.age = histogram("robossl_frame_age_seconds", "From a served frame's capture to its reply")
        self.batch = Histogram(
            "robossl_batch_frames", "Frames run together", _LABELS[:2], buckets=_FRAMES, registry=self.registry
        )
        self.refused = Counter(
            "robossl_refused", "Calls refused before they reached a model", ("status",), registry=self.registry
        )
        self.loaded = Gauge("robossl_model_loaded", "1 while a version is loaded", _LABELS[:2], registry=self.registry)

    def answered(self, labels: tuple[str, str], request: Request, now_s: float) -> None:
        """Count a request whose outcome is known."""
        kind = (*labels, "batch" if request.robot is None else "control")
        assert request.outcome is not None
        self.requests.labels(*kind, request.outcome).inc()
        if request.outcome == "served":
            self.queue.labels(*kind).observe(request.started_s - request.arrived_s)
            self.run.labels(*kind).observe(request.run_s)
            self.age.labels(*kind).observe(now_s - request.captured_s)
        elif request.outcome == "superseded":
            self.superseded.labels(*kind).inc()
