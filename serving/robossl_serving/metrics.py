"""Metrics: what Prometheus scrapes, put together from the models' statistics when it does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import grpc
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from robossl_serving.statistics import BOUNDS_S, Statistics, Times

_LABELS = ("model", "version", "kind")
_HISTOGRAMS = {
    "robossl_queue_seconds": ("queue", "From a decoded frame to its run"),
    "robossl_infer_seconds": ("run", "The encoder's run"),
    "robossl_frame_age_seconds": ("age", "From a served frame's capture to its reply"),
    "robossl_request_seconds": ("total", "From a request's arrival to its reply"),
}


class Metrics(Collector):
    """All metrics of one server, in a registry of their own, so that two servers can live in one process."""

    def __init__(self, loaded: Callable[[], Iterable[Statistics]]) -> None:
        self.registry = CollectorRegistry()
        self._loaded = loaded
        self._refused = Counter(
            "robossl_refused", "Calls that ended with a status other than OK", ("status",), registry=self.registry
        )
        self.registry.register(self)

    def refuse(self, code: grpc.StatusCode) -> None:
        """Count a call that ends with a status other than OK."""
        self._refused.labels(code.name).inc()

    def describe(self) -> list[Metric]:
        """Nothing beforehand: models come and go."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The state of all loaded versions."""
        requests = CounterMetricFamily(
            "robossl_requests", "Requests by what became of them", labels=(*_LABELS, "outcome")
        )
        runs = CounterMetricFamily("robossl_runs", "Runs by number of frames", labels=(*_LABELS[:2], "frames"))
        loaded = GaugeMetricFamily("robossl_model_loaded", "1 while a version is loaded", labels=_LABELS[:2])
        histograms = {
            name: HistogramMetricFamily(name, about, labels=_LABELS) for name, (_, about) in _HISTOGRAMS.items()
        }
        for statistics in self._loaded():
            model = (statistics.name, statistics.version)
            loaded.add_metric(model, 1)
            with statistics.lock:
                for frames, turns in statistics.turns.items():
                    runs.add_metric((*model, str(frames)), turns.count)
                for name, kind in statistics.kinds.items():
                    for outcome, count in kind.outcomes.items():
                        requests.add_metric((*model, name, outcome), count)
                    times = {"queue": kind.queue, "run": kind.run, "age": kind.age, "total": kind.total}
                    for metric, (which, _) in _HISTOGRAMS.items():
                        histograms[metric].add_metric((*model, name), _buckets(times[which]), times[which].sum_s)
        yield from (requests, runs, loaded, *histograms.values())


def _buckets(times: Times) -> list[tuple[str, float]]:
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    return list(zip(bounds, itertools.accumulate(times.counts), strict=True))
