"""EncoderServer: serve a model repository over gRPC, with health checks and reflection."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from robossl_client.wire import SERVICE

from robossl.common.checks import check_range
from robossl.common.cpus import num_cpus
from robossl_serving.budget import MemoryBudget
from robossl_serving.describe import Descriptions
from robossl_serving.handlers import Handlers
from robossl_serving.health import HealthService
from robossl_serving.infer import Inference
from robossl_serving.limits import Limits
from robossl_serving.listen import format_address, is_unix, listen
from robossl_serving.metrics import Metrics
from robossl_serving.model import SessionSettings
from robossl_serving.reflection import public_pool
from robossl_serving.refusals import Refusals
from robossl_serving.repository import Repository
from robossl_serving.security import Security
from robossl_serving.shared_memory import SharedMemory
from robossl_serving.streams import Streams

_log = logging.getLogger("robossl.serving")
DAY_S = 86_400.0
_GIVE_BACK_S = 2.0  # seconds between checks for freed memory
_SPARE_THREADS = 16  # extra threads for health checks, metadata and administration under full load


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Address, limits and security of a server."""

    host: str = "127.0.0.1"
    port: int = 8001  # 0 for any free port
    metrics_port: int | None = None
    session: SessionSettings = field(default_factory=SessionSettings)
    limits: Limits = field(default_factory=Limits)
    security: Security = field(default_factory=Security)
    shared_memory: bool = False
    poll_seconds: float = 0.0  # seconds between scans for new versions; 0 for scans only on request
    # A client can pin a version: it then accepts no other. A replaced version stays loaded for this time after the last
    # request from a client that pinned it.
    retire_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: a number is out of range.
        """
        check_range(0, 65535, port=self.port, metrics_port=self.metrics_port)
        check_range(1, 4096, streams=self.limits.streams)
        check_range(0, DAY_S, poll_seconds=self.poll_seconds, retire_seconds=self.retire_seconds)


class EncoderServer:
    """A server of the models in a folder."""

    def __init__(self, models: Path, settings: ServerSettings) -> None:
        """Load the models and open the port; calls are answered after `start`.

        Raises:
            InputError: no model can be served, or a certificate or token cannot be read.
            ResourceError: the port is taken.
        """
        limits = settings.limits
        self._settings = settings
        self._metrics = Metrics(lambda: self.repository, num_streams=lambda: len(self.streams))
        self._denials = Refusals("refused a caller", self._metrics.refuse)
        credentials, interceptors = settings.security.credentials(), settings.security.interceptors(self._denials)
        self._health = HealthService()
        self.repository = Repository(
            models,
            replace(settings.session, max_slots=limits.waiting + limits.streams),
            retire_after_s=settings.retire_seconds,
            on_change=lambda: self._health.update(self.repository),
        )
        self.repository.load_all()
        self._memory = SharedMemory(max_regions=limits.regions) if settings.shared_memory else None
        self._budget = MemoryBudget(limits, num_decoders=max(1, num_cpus() - 1))
        inference = Inference(self.repository, limits, self._memory, self._budget)
        self.streams = Streams(inference, limits, self._metrics.refuse)
        # Three kinds of requests need up to `waiting` threads each: control requests, batch requests in decoding, and
        # queued batch requests. Each stream needs one more thread.
        num_threads = 3 * limits.waiting + limits.streams + _SPARE_THREADS
        self._server = grpc.server(
            ThreadPoolExecutor(num_threads, thread_name_prefix="grpc"),
            handlers=[
                Handlers(
                    repository=self.repository,
                    inference=inference,
                    streams=self.streams,
                    descriptions=Descriptions(self.repository, has_shared_memory=settings.shared_memory),
                    shared_memory=self._memory,
                    metrics=self._metrics,
                ).generic()
            ],
            interceptors=interceptors,
            options=_options(limits),
            maximum_concurrent_rpcs=num_threads,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool=public_pool())
        self.port, self._addresses = listen(settings.host, settings.port, partial(_open, self._server, credentials))
        self.address = format_address(settings.host, self.port)
        self.metrics_pages: list[str] = []
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start to answer calls.

        Raises:
            ResourceError: the metrics port is taken.
        """
        if self._settings.metrics_port is not None:
            addresses = ["127.0.0.1"] if is_unix(self._settings.host) else self._addresses
            port = self._metrics.serve(addresses, self._settings.metrics_port)
            self.metrics_pages = [f"http://{format_address(each, port)}/metrics" for each in addresses]
        self._server.start()
        facts = {"tls": self._settings.security.tls_cert is not None, "metrics": self.metrics_pages}
        _log.info("listening", extra={"address": self.address, **facts})
        self.repository.announce()
        threading.Thread(target=self._tend, name="tend", daemon=True).start()
        threading.Thread(target=self._give_back, name="give-back", daemon=True).start()

    def look(self) -> None:
        """Scan for new versions now, and also retry versions that failed their checks."""
        try:
            self.repository.look(again=True)
        except Exception:
            _log.exception("scan for new versions failed; the loaded versions go on serving")

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Report NOT_SERVING, answer the accepted requests, and close."""
        began_s = time.monotonic()
        waiting = sum(len(model.executor) for model in self.repository.models())
        facts = {"grace_seconds": grace_s, "open_streams": len(self.streams), "waiting_requests": waiting}
        _log.info("draining", extra=facts)
        self._stopped.set()
        self._health.shut_down()
        self.streams.drain()
        self._server.stop(grace_s).wait()
        self.repository.close()
        self._metrics.close()
        if self._memory is not None:
            self._memory.close()
        self._denials.close()
        _log.info("stopped", extra={"seconds": round(time.monotonic() - began_s, 2)})

    def _give_back(self) -> None:
        while not self._stopped.wait(_GIVE_BACK_S):
            try:
                self._budget.give_back()
                for model in self.repository.models():
                    model.give_back()
            except Exception:
                _log.exception("returning freed memory to the system failed; the server goes on")

    def _tend(self) -> None:
        every_s = self._settings.poll_seconds or 5.0
        while not self._stopped.wait(every_s):
            try:
                self.repository.tend()
                if self._settings.poll_seconds:
                    self.repository.look(again=False)
            except Exception:
                _log.exception("maintenance of the repository failed; the loaded versions go on serving")


def _options(limits: Limits) -> list[tuple[str, int]]:
    # Name each option only once, because grpc takes the first of duplicates.
    return [
        ("grpc.so_reuseport", 0),  # otherwise a second server could share the port and take half of the calls
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", 3 * limits.waiting + limits.streams),
        # A ping after 10 s of silence, whose answer must come within 4 s, shows within 14 s that a robot left.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 4_000),
        ("grpc.http2.ping_timeout_ms", 4_000),  # otherwise grpc waits a minute, even with `keepalive_timeout_ms`
        ("grpc.http2.settings_timeout", 10_000),  # time after which a client that stays silent is disconnected
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients that ping more often are disconnected
    ]


def _open(server: grpc.Server, credentials: grpc.ServerCredentials | None, address: str) -> int:
    if credentials is None:
        return int(server.add_insecure_port(address))
    return int(server.add_secure_port(address, credentials))
