"""Prometheus metrics, built from the models' statistics at each scrape."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from wsgiref.simple_server import WSGIServer

import grpc
from prometheus_client import CollectorRegistry, Counter, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from robossl.errors import ResourceError
from robossl_serving.listen import format_address
from robossl_serving.repository import Repository
from robossl_serving.statistics import BOUNDS_S, TimeHistogram

_LABELS = ("model", "version", "kind")
_HISTOGRAMS = {
    "robossl_queue_seconds": ("queue", "Time from decoded frame to the start of its run"),
    "robossl_infer_seconds": ("run", "Time of the encoder run"),
    "robossl_frame_age_seconds": ("age", "Time from capture of a served frame to its reply"),
    "robossl_request_seconds": ("total", "Time from arrival of a request to its reply"),
}


class Metrics(Collector):
    """All metrics of one server, in a registry of their own, so that one process can run several servers."""

    def __init__(self, repository: Callable[[], Repository], *, num_streams: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._repository = repository
        self._num_streams = num_streams
        self._pages: list[WSGIServer] = []
        self._refused = Counter(
            "robossl_refused",
            "Calls, and requests in streams, with a status other than OK",
            ("status",),
            registry=self.registry,
        )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)  # adds process_resident_memory_bytes, process_open_fds, ...

    def serve(self, addresses: Iterable[str], port: int) -> int:
        """Serve the metrics over HTTP; return the port (0 chooses a free port).

        Raises:
            ResourceError: the port is taken.
        """
        for address in addresses:
            try:
                page, _ = start_http_server(port, addr=address, registry=self.registry)
            except OSError as error:
                where = format_address(address, port)
                said = f"cannot serve metrics on {where} ({error.strerror}); choose another --metrics-port"
                raise ResourceError(said) from error
            self._pages.append(page)
            port = int(page.server_port)
        return port

    def close(self) -> None:
        """Stop the HTTP servers."""
        for page in self._pages:
            page.shutdown()
            page.server_close()

    def refuse(self, code: grpc.StatusCode) -> None:
        """Count a call that ended with a status other than OK."""
        self._refused.labels(code.name).inc()

    def describe(self) -> list[Metric]:
        """Return no descriptions in advance, because the set of models changes."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all models and of the server."""
        requests = CounterMetricFamily("robossl_requests", "Requests by outcome", labels=(*_LABELS, "outcome"))
        runs = CounterMetricFamily("robossl_runs", "Encoder runs by number of frames", labels=(*_LABELS[:2], "frames"))
        histograms = {
            name: HistogramMetricFamily(name, about, labels=_LABELS) for name, (_, about) in _HISTOGRAMS.items()
        }
        for statistics in [each.statistics for each in self._repository().models()]:
            model = (statistics.name, statistics.version)
            with statistics.lock:
                for frames, run_count in statistics.runs.items():
                    runs.add_metric((*model, str(frames)), run_count.count)
                for name, kind in statistics.kinds.items():
                    for outcome, count in kind.outcomes.items():
                        requests.add_metric((*model, name, outcome), count)
                    times = {"queue": kind.queue, "run": kind.run, "age": kind.age, "total": kind.total}
                    for metric, (which, _) in _HISTOGRAMS.items():
                        histograms[metric].add_metric((*model, name), _buckets(times[which]), times[which].sum_s)
        yield from (requests, runs, *histograms.values(), *self._gauges())

    def _gauges(self) -> Iterator[Metric]:
        repository = self._repository()
        loaded = GaugeMetricFamily("robossl_model_loaded", "1 while a version is loaded", labels=_LABELS[:2])
        current = GaugeMetricFamily(
            "robossl_model_current", "1 for the version that serves calls without a version", labels=_LABELS[:2]
        )
        failed = GaugeMetricFamily(
            "robossl_model_failed", "1 while a version on disk fails its checks", labels=_LABELS[:2]
        )
        waiting = GaugeMetricFamily("robossl_waiting_requests", "Waiting requests", labels=_LABELS[:2])
        for entry in repository.entries():
            current.add_metric((entry.name, str(entry.current)), 1)
        for name, version in repository.failed():
            failed.add_metric((name, str(version)), 1)
        for model in repository.models():
            labels = (model.card.name, str(model.card.version))
            loaded.add_metric(labels, 1)
            waiting.add_metric(labels, len(model.executor))
        streams = GaugeMetricFamily("robossl_open_streams", "Open streams", value=self._num_streams())
        yield from (loaded, current, failed, waiting, streams)


def _buckets(times: TimeHistogram) -> list[tuple[str, float]]:
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    return list(zip(bounds, itertools.accumulate(times.counts), strict=True))
