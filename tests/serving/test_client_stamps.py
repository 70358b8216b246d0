"""Stamps of frames: which clock they are of, what cannot be right, and how each client takes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robossl_client.client import EncoderClient
from robossl_client.clocks import MAX_AGE_S, MAX_AHEAD_S, capture_time
from robossl_client.errors import RequestError
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, serving


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0)) as server:
        yield server


MONOTONIC_ADVICE = r"time\.monotonic\(\); pass wall-clock stamps \(time\.time\(\), ROS\), in seconds, as captured_at="
WALL_ADVICE = r"time\.time\(\); pass stamps of time\.monotonic\(\), in seconds, as captured_s="


@pytest.mark.parametrize(
    ("stamps", "words"),
    [
        (lambda: {"captured_s": time.time()}, f"captured_s is .* s in the future of {MONOTONIC_ADVICE}"),
        (lambda: {"captured_s": time.monotonic_ns()}, "captured_s is .* s in the future"),
        (lambda: {"captured_s": 1e3 * (time.monotonic() + 1e3)}, "captured_s is .* s in the future"),
        (lambda: {"captured_s": time.monotonic() + 1}, "captured_s is .* s in the future"),
        (lambda: {"captured_s": time.monotonic() - 1.2 * MAX_AGE_S}, f"captured_s is 720 s old, .* {MONOTONIC_ADVICE}"),
        (lambda: {"captured_s": -time.time()}, "captured_s is .* s old, over 600 s"),
        (lambda: {"captured_at": time.monotonic()}, f"captured_at is .* s old, over 600 s, by {WALL_ADVICE}"),
        (lambda: {"captured_at": time.time_ns()}, f"captured_at is .* s in the future of {WALL_ADVICE}"),
        (lambda: {"captured_at": 1e3 * time.time()}, "captured_at is .* s in the future"),
        (lambda: {"captured_at": 0}, "captured_at is .* s old"),
        (lambda: {"captured_s": float("nan")}, "captured_s must be seconds of .*; got nan"),
        (lambda: {"captured_s": float("inf")}, "captured_s must be seconds of .*; got inf"),
        (lambda: {"captured_at": float("-inf")}, "captured_at must be seconds of .*; got -inf"),
        (lambda: {"captured_at": np.float32("nan")}, "captured_at must be seconds of .*; got "),
        (lambda: {"captured_s": "12.5"}, "captured_s must be seconds of .*; got '12.5'"),
        (lambda: {"captured_s": True}, "captured_s must be seconds of .*; got True"),
        (lambda: {"captured_at": datetime.now()}, "captured_at must be seconds of .*; got datetime"),
        (lambda: {"captured_s": time.monotonic(), "captured_at": time.time()}, "pass one of them"),
    ],
)
def test_a_stamp_that_cannot_be_right_is_refused_in_one_line(server: EncoderServer, stamps: Any, words: str) -> None:
    with EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client, client.latest() as stream:
        asks = (
            lambda: client.encode(FRAMES[:1], **stamps()),
            lambda: client.encode_cameras({"wrist": FRAMES[0]}, **stamps()),
            lambda: stream.send(FRAMES[:1], **stamps()),
        )
        for ask in asks:
            with pytest.raises(RequestError, match=words) as caught:
                ask()
            assert "\n" not in str(caught.value)
        assert stream.num_dropped == 0, "nothing was sent"


def test_both_clocks_give_the_same_age(server: EncoderServer) -> None:
    with EncoderClient(f"127.0.0.1:{server.port}", robot="arm", deadline_ms=30_000) as client:
        for stamps in ({"captured_s": time.monotonic() - 7}, {"captured_at": time.time() - 7}):
            assert 7 <= client.encode(FRAMES[:1], **stamps).age_s < 30
            with client.latest() as stream:
                stream.send(FRAMES[:1], **stamps)
                reply = stream.take(wait_ms=20_000)
                assert reply is not None
                assert 7 <= reply.age_s < 30


def test_a_stamp_that_is_hardly_ahead_counts_as_now() -> None:
    before_s = time.monotonic()
    at_s = capture_time(before_s + MAX_AHEAD_S, None)
    assert before_s <= at_s <= time.monotonic()
    at_s = capture_time(None, time.time() + MAX_AHEAD_S / 2)
    assert before_s <= at_s <= time.monotonic()
    assert capture_time(np.float64(before_s), None) == pytest.approx(before_s, abs=1e-6)
    assert before_s <= capture_time(None, None) <= time.monotonic()
