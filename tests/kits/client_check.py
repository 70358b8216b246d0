"""Use the client on an older Python: `python client_check.py HOST:PORT`, with numpy, grpcio and protobuf only."""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np
from robossl_client.aio import AsyncEncoderClient
from robossl_client.client import EncoderClient
from robossl_client.errors import DeadlineError, RequestError, UnavailableError


def check(target: str) -> None:
    """Make every kind of call."""
    frames = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), np.uint8)
    with EncoderClient(target, robot="old", deadline_ms=10_000) as client:
        wanted = client(frames)
        assert wanted["pooled"].shape[0] == 2
        both = client.encode_cameras({"a": frames[0], "b": frames[1]})
        np.testing.assert_allclose(both["b"]["pooled"], wanted["pooled"][1:], atol=1e-5)
        with client.latest() as stream:
            stream.send(frames[:1], captured_s=time.monotonic())
            reply = stream.take(wait_ms=10_000)
            assert reply is not None
            np.testing.assert_allclose(reply.features["pooled"], wanted["pooled"][:1], atol=1e-5)
    with EncoderClient(target, shared_memory=True) as client:
        np.testing.assert_allclose(client(frames)["pooled"], wanted["pooled"], atol=1e-5)
        for bad, kind in ((frames[0], RequestError), ([b""], RequestError)):
            try:
                client.encode(bad)
            except kind:
                continue
            raise AssertionError("not refused")
        try:
            client.encode(np.zeros((64, 64, 64, 3), np.uint8), deadline_ms=1)
        except DeadlineError as error:
            assert isinstance(error, TimeoutError)
    try:
        EncoderClient("127.0.0.1:1", connect_ms=200)
    except UnavailableError as error:
        assert isinstance(error, ConnectionError)

    async def ask() -> None:
        async with AsyncEncoderClient(target, robot="old", deadline_ms=10_000, shared_memory=True) as client:
            reply = await client.encode(frames, captured_at=time.time())
            np.testing.assert_allclose(reply.features["pooled"], wanted["pooled"], atol=1e-5)
            async with client.latest() as stream:
                await stream.send(frames[:1], captured_at=time.time())
                newest = await stream.take(wait_ms=10_000)
                assert newest is not None
                np.testing.assert_allclose(newest.features["pooled"], wanted["pooled"][:1], atol=1e-5)

    asyncio.run(ask())
    others = {"torch", "onnxruntime", "robossl", "jaxtyping", "PIL"} & set(sys.modules)
    assert not others, others
    print("checked by Python", sys.version.split()[0])


if __name__ == "__main__":
    check(sys.argv[1])
