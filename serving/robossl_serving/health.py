"""Health checks (grpc.health.v1) of the server, of each model by NAME, and of each version by NAME/VERSION."""

from __future__ import annotations

import threading

from grpc_health.v1 import health, health_pb2
from robossl_client.wire import SERVICE

from robossl_serving.repository import Repository

_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class HealthService:
    """Answers health checks; the server is SERVING while at least one model is SERVING."""

    def __init__(self) -> None:
        self.servicer = health.HealthServicer()
        self._names: set[str] = set()
        self._lock = threading.Lock()  # without the lock, an older update could overwrite a newer one
        for name in ("", SERVICE):
            self._set(name, False)

    def update(self, repository: Repository) -> None:
        """Set the status of every model and version; names that are no longer in the repository are NOT_SERVING."""
        with self._lock:
            serves = {"": False, SERVICE: False}
            for row in repository.index():
                for name in ("", SERVICE, row.name):
                    serves[name] = serves.get(name, False) or row.ready
                serves[f"{row.name}/{row.version}"] = row.ready
            for name in sorted(self._names | serves.keys()):
                self._set(name, serves.get(name, False))

    def shut_down(self) -> None:
        """Answer NOT_SERVING to every check from now on."""
        self.servicer.enter_graceful_shutdown()

    def _set(self, name: str, serves: bool) -> None:
        self._names.add(name)
        self.servicer.set(name, _STATUS[serves])
