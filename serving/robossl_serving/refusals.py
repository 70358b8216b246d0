"""Count the requests that are refused within a stream or because of their token; log them at a limited rate."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from robossl_client._proto import inference_pb2 as pb
from robossl_client.wire import get_value

from robossl_serving.refused import RefusedError

# Minimum time between log lines about the same caller and status.
# Without it, a broken camera would cause 30 lines a second.
_EVERY_S = 10.0
# These statuses are normal for a control loop under load, so they are counted in the metrics but not logged.
_EXPECTED = {grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

# Maximum number of (caller, status) pairs that are logged separately. Further callers are logged together, by status.
_MAX_CALLERS = 256

_log = logging.getLogger("robossl.serving")


@dataclass(slots=True)
class _Unlogged:
    next_s: float  # time from which the next line may be logged
    times: int  # number of refusals since the last logged line
    facts: dict[str, object]  # facts about the last refusal


class Refusals:
    """Counts and logs the requests that are refused in one stream, or because of their token."""

    def __init__(self, event: str, on_refused: Callable[[grpc.StatusCode], None]) -> None:
        """Log the refusals under the name `event`, and tell `on_refused` the status of each."""
        self._event = event
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._unlogged: dict[tuple[grpc.StatusCode, str], _Unlogged] = {}

    def add(
        self, refused: RefusedError, peer: str, message: pb.ModelInferRequest | None = None, **more: object
    ) -> None:
        """Count a refusal. Log a caller's first refusal of each status at once, and later ones together every 10 s."""
        self._on_refused(refused.code)
        if refused.code in _EXPECTED:
            return
        facts = {"peer": peer, "status": refused.code.name, "reason": refused.message, **_facts(message), **more}
        host = peer.rpartition(":")[0]  # without the port, because every connection has another port
        now_s = time.monotonic()
        with self._lock:
            key = refused.code, host
            if key not in self._unlogged and len(self._unlogged) >= _MAX_CALLERS:
                key = refused.code, ""
            unlogged = self._unlogged.setdefault(key, _Unlogged(next_s=now_s, times=0, facts=facts))
            unlogged.times, unlogged.facts = unlogged.times + 1, facts
            if now_s >= unlogged.next_s:
                self._write(unlogged)
                unlogged.next_s = now_s + _EVERY_S

    def close(self) -> None:
        """Log the refusals that are not logged yet."""
        with self._lock:
            for unlogged in self._unlogged.values():
                if unlogged.times:
                    self._write(unlogged)

    def _write(self, unlogged: _Unlogged) -> None:
        _log.warning(self._event, extra={**unlogged.facts, "times": unlogged.times})
        unlogged.times = 0


def _facts(message: pb.ModelInferRequest | None) -> dict[str, object]:
    """Return the model, robot and camera of a request."""
    if message is None:
        return {}
    named = {name: get_value(message.parameters[name]) for name in ("robot", "camera") if name in message.parameters}
    return {"model": message.model_name[:128], **{name: str(value)[:128] for name, value in named.items()}}
