"""A server that is there and does not move: calls end by their deadline, sending never waits, and it is found again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from robossl_client.client import EncoderClient
from robossl_client.errors import DeadlineError, UnavailableError
from serving_kit import FRAMES, freeze, server_process


def test_a_frozen_server_holds_nobody_up(tiny_models: Path) -> None:
    with (
        server_process(tiny_models) as (process, port),
        EncoderClient(f"127.0.0.1:{port}", robot="arm") as client,
        client.latest(camera="wrist") as stream,
    ):
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=30_000) is not None
        freeze(process)
        began_s = time.monotonic()
        with pytest.raises((DeadlineError, UnavailableError)):
            client.encode(FRAMES[:1], deadline_ms=300)
        for _ in range(100):
            stream.send(FRAMES[:1])
        assert stream.take() is None
        assert time.monotonic() - began_s < 5
        time.sleep(6)  # by now the connection is given up
        process.send_signal(signal.SIGCONT)
        thawed_s = time.monotonic()
        assert client.encode(FRAMES[:1], deadline_ms=30_000).features
        reply = None
        while reply is None or reply.age_s > time.monotonic() - thawed_s:
            assert time.monotonic() - thawed_s < 20
            stream.send(FRAMES[:1])
            reply = stream.take(wait_ms=100)
        assert stream.num_connections >= 2
