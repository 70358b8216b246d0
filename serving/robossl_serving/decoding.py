"""Decode the images of requests within the server's memory budget; stop if the client has left."""

from __future__ import annotations

import threading
import time

import grpc
from jaxtyping import UInt8
from numpy import ndarray

from robossl_serving.budget import MemoryBudget, MemoryClaim, late_error
from robossl_serving.estimates import TimeEstimates
from robossl_serving.images import EncodedImages
from robossl_serving.refused import RefusedError
from robossl_serving.requests import Outcome
from robossl_serving.statistics import ModelStatistics

_OUTCOMES: dict[grpc.StatusCode, Outcome] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "shed",
    grpc.StatusCode.CANCELLED: "cancelled",
}


class ImageDecoder:
    """Decodes images in the calling thread, and measures the time, so that it can refuse late requests."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._times = TimeEstimates()

    def decode(
        self, images: EncodedImages, claim: MemoryClaim, statistics: ModelStatistics
    ) -> UInt8[ndarray, "b h w 3"]:
        """Decode the images of a request. If it is late or its client has left, count the request in `statistics`.

        Raises:
            RefusedError: an image is damaged, memory is full, the client left, or the deadline cannot be met.
        """
        try:
            self._refuse_late(images, claim)
            self._budget.take_pixels(claim, images.decoded_bytes + images.working_bytes)
            started_s = time.monotonic()
            frames = images.decode(claim.check)
        except RefusedError as refused:
            if refused.code in _OUTCOMES:
                statistics.count_dropped(claim.priority, _OUTCOMES[refused.code])
            raise
        now_s = time.monotonic()
        with self._lock:
            self._times.learn(images.size, images.expected_s, now_s - started_s, now_s=now_s)
        self._budget.decoded(claim, working_bytes=images.working_bytes)
        return frames

    def _refuse_late(self, images: EncodedImages, claim: MemoryClaim) -> None:
        now_s = time.monotonic()
        left_s = claim.deadline_s - now_s
        with self._lock:
            is_late = self._times.is_late(images.size, images.expected_s, least_s=0.0, left_s=left_s, now_s=now_s)
        if is_late:
            raise late_error()
