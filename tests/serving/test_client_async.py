"""AsyncEncoderClient is EncoderClient for asyncio: the same calls, arguments, answers and errors."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robossl_client.aio import AsyncEncoderClient, AsyncLatest
from robossl_client.client import EncoderClient
from robossl_client.errors import (
    DeadlineError,
    EncoderChangedError,
    RequestError,
    UnavailableError,
    UnknownModelError,
)
from robossl_client.latest import Latest
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Holder, build_tiny, copy_version, eventually, serving

from robossl.encoders.inference import load_encoder
from robossl.exporting.parity import natural_frames

PAIRS = [(EncoderClient, AsyncEncoderClient), (Latest, AsyncLatest)]


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


def with_client(server: EncoderServer, use: Callable[[AsyncEncoderClient], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        client = AsyncEncoderClient(f"127.0.0.1:{server.port}", **{"deadline_ms": 60_000.0} | options)
        async with client:
            await use(client)

    asyncio.run(main())


def _public(kind: type) -> dict[str, Any]:
    special = {"__init__", "__call__"} if kind in PAIRS[0] else set()  # streams are made by `latest`
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_") or name in special}


@pytest.mark.parametrize(("kind", "async_kind"), PAIRS)
def test_both_have_the_same_calls_with_the_same_arguments(kind: type, async_kind: type) -> None:
    ours, theirs = _public(kind), _public(async_kind)
    assert theirs.keys() - {"connect"} == ours.keys()
    for name, value in ours.items():
        if not callable(value):
            continue
        ask, answer = inspect.signature(value), inspect.signature(theirs[name])
        assert answer.parameters == ask.parameters, name
        assert answer.return_annotation in (ask.return_annotation, f"Async{ask.return_annotation}"), name
        assert inspect.iscoroutinefunction(theirs[name]) == (name not in ("__init__", "latest")), name
        assert theirs[name].__doc__


def test_connect_takes_what_the_client_takes() -> None:
    wanted = list(inspect.signature(EncoderClient).parameters.values())
    assert list(inspect.signature(AsyncEncoderClient.connect).parameters.values()) == wanted


def test_calls_give_the_same(server: EncoderServer, tiny_models: Path) -> None:
    local = load_encoder(tiny_models / "tiny")
    frames = natural_frames(70, (20, 30), seed=0)

    async def use(client: AsyncEncoderClient) -> None:
        assert client.card == local.card
        wanted, got = local(frames), await client(frames)
        assert got.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], atol=1e-5)
        replies = await asyncio.gather(*(client.encode(frames[row : row + 1]) for row in range(5)))
        for row, reply in enumerate(replies):
            np.testing.assert_allclose(reply.features["pooled"], wanted["pooled"][row : row + 1], atol=1e-5)
        both = await client.encode_cameras({"wrist": frames[0], "front": frames[2]}, captured_at=time.time())
        np.testing.assert_allclose(both["front"]["pooled"], wanted["pooled"][2:3], atol=1e-5)

    for options in ({}, {"shared_memory": True}, {"model": "tiny", "version": 2}):
        with_client(server, use, **options)
    assert not list(Path("/dev/shm").glob(f"robossl-{os.getpid()}-*"))  # other processes have their own


def test_every_way_to_connect(server: EncoderServer) -> None:
    async def main() -> None:
        client = await AsyncEncoderClient.connect(f"127.0.0.1:{server.port}", model="tiny")
        assert (await client.encode(FRAMES)).features
        await client.close()
        with pytest.raises(RequestError, match="the client is closed"):
            await client.encode(FRAMES)
        new = AsyncEncoderClient(f"127.0.0.1:{server.port}")
        with pytest.raises(RequestError, match="not connected; use it in `async with`"):
            await new.encode(FRAMES)
        with pytest.raises(RequestError, match="not connected"):
            _ = new.card

    asyncio.run(main())


def test_errors_are_the_same(server: EncoderServer) -> None:
    async def main() -> None:
        target = f"127.0.0.1:{server.port}"
        with pytest.raises(UnknownModelError, match="no model 'other' is loaded"):
            await AsyncEncoderClient.connect(target, model="other")
        with pytest.raises(EncoderChangedError, match="wanted are abcabc"):
            await AsyncEncoderClient.connect(target, digest="abcabc")
        with pytest.raises(UnavailableError):
            await AsyncEncoderClient.connect("127.0.0.1:1", connect_ms=300)

    asyncio.run(main())

    async def use(client: AsyncEncoderClient) -> None:
        for bad in (b"jpeg", None, [FRAMES[0]], FRAMES[0]):
            with pytest.raises(RequestError, match="frames must be uint8 RGB"):
                await client.encode(bad)
        with pytest.raises(RequestError, match="neither a JPEG nor a PNG"):
            await client.encode([b"no image"])
        with pytest.raises(RequestError, match=r"captured_s is .* in the future"):
            await client.encode(FRAMES, captured_s=time.time())
        with pytest.raises(DeadlineError):
            await client.encode(natural_frames(64, (64, 64), seed=0), deadline_ms=1)
        with pytest.raises(RequestError, match="belongs to a robot"):
            client.latest()

    with_client(server, use)
    with_client(server, use, shared_memory=True)


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_stream(server: EncoderServer, tiny_models: Path, is_shared: bool) -> None:
    wanted = load_encoder(tiny_models / "tiny")(FRAMES)["pooled"]

    async def use(client: AsyncEncoderClient) -> None:
        async with client.latest(camera="wrist") as stream:
            for row in (0, 1, 2):
                await stream.send(FRAMES[row : row + 1], captured_s=time.monotonic())
                reply = await stream.take(wait_ms=20_000)
                assert reply is not None
                np.testing.assert_allclose(reply.features["pooled"], wanted[row : row + 1], atol=1e-5)
            assert await stream.take() is None
            assert await stream.take(wait_ms=20) is None
            await stream.send([b"no image"])
            await asyncio.to_thread(eventually, lambda: stream.num_refused > 0)
            await stream.send(FRAMES[:1])
            assert await stream.take(wait_ms=20_000) is not None
            assert (stream.num_dropped, stream.num_connections) == (1, 1)
        with pytest.raises(RequestError, match="the stream is closed"):
            await stream.send(FRAMES[:1])
        forgotten = client.latest()
        await forgotten.send(FRAMES[:1])
        assert await forgotten.take(wait_ms=20_000) is not None  # the client closes it

    with_client(server, use, robot="arm", shared_memory=is_shared)


def test_a_frame_of_a_stream_is_as_it_was_when_it_was_sent(server: EncoderServer) -> None:
    async def use(client: AsyncEncoderClient) -> None:
        buffer = np.zeros_like(FRAMES[:1])
        black = (await client.encode(buffer)).features["pooled"]
        async with client.latest() as stream:
            for _ in range(10):
                buffer[:] = 0
                await stream.send(buffer)
                buffer[:] = 255
                reply = await stream.take(wait_ms=20_000)
                assert reply is not None
                np.testing.assert_allclose(reply.features["pooled"], black, atol=1e-4)

    with_client(server, use, robot="arm", deadline_ms=20_000.0)


def test_a_late_reply_of_a_stream_is_dropped(server: EncoderServer) -> None:
    async def use(client: AsyncEncoderClient) -> None:
        async with client.latest() as stream:
            with Holder(server) as holder:
                await stream.send(FRAMES[:1])
                assert await asyncio.to_thread(holder.entered.wait, 60)
                await stream.send(FRAMES[1:2])
                await asyncio.to_thread(holder.wait_for, 1)
                await asyncio.sleep(0.5)
            await asyncio.to_thread(eventually, lambda: stream.num_late >= 2)
            assert await stream.take(wait_ms=50) is None
            assert stream.num_dropped == 2

    with_client(server, use, robot="arm", deadline_ms=400.0)


def test_who_waits_hears_that_the_stream_was_closed(server: EncoderServer) -> None:
    async def use(client: AsyncEncoderClient) -> None:
        stream = client.latest()
        waiting = asyncio.create_task(stream.take(wait_ms=60_000))
        await asyncio.sleep(0)
        await stream.close()
        with pytest.raises(RequestError, match="the stream is closed"):
            await asyncio.wait_for(waiting, 30)

    with_client(server, use, robot="arm")


def test_a_cancelled_call_is_never_run(server: EncoderServer) -> None:
    async def use(client: AsyncEncoderClient) -> None:
        before = server.repository.models()[0].statistics.to_message().execution_count
        with Holder(server) as holder:
            running = asyncio.create_task(client.encode(FRAMES[:1]))
            assert await asyncio.to_thread(holder.entered.wait, 60)
            waiting = [asyncio.create_task(client.encode(FRAMES)) for _ in range(5)]
            await asyncio.to_thread(holder.wait_for, 5)
            for task in waiting:
                task.cancel()
            await asyncio.to_thread(holder.wait_for, 0)
        await running
        assert server.repository.models()[0].statistics.to_message().execution_count == before + 1

    with_client(server, use)


def test_a_call_does_not_wait_for_anothers_shared_memory_beyond_its_deadline(server: EncoderServer) -> None:
    async def use(client: AsyncEncoderClient) -> None:
        with Holder(server) as holder:
            running = asyncio.create_task(client.encode(FRAMES[:1]))
            assert await asyncio.to_thread(holder.entered.wait, 60)
            with pytest.raises(DeadlineError, match="still used its shared memory"):
                await client.encode(FRAMES[:1], deadline_ms=200)
            assert not running.done()
        assert (await running).features

    with_client(server, use, shared_memory=True)


def test_a_server_that_comes_back_is_found_again(tiny_models: Path, tmp_path: Path) -> None:
    models = copy_version(tiny_models, tmp_path, 1)

    async def main() -> None:
        with serving(models) as server:
            port = server.port
            client = await AsyncEncoderClient.connect(f"127.0.0.1:{port}", robot="arm")
            stream = client.latest()
            wanted = (await client.encode(FRAMES, deadline_ms=20_000)).features["pooled"]
        with pytest.raises(UnavailableError):
            await client.encode(FRAMES, deadline_ms=200)
        with serving(models, ServerSettings(port=port)):
            again = (await client.encode(FRAMES, deadline_ms=30_000)).features["pooled"]
            np.testing.assert_array_equal(again, wanted)
            until_s, reply = time.monotonic() + 60, None
            while reply is None and time.monotonic() < until_s:
                await stream.send(FRAMES[:1])
                reply = await stream.take(wait_ms=100)
            assert reply is not None
            assert stream.num_connections >= 2
            await client.close()

    asyncio.run(main())


def test_frames_of_one_array_are_of_one_encoder(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1)
    frames = natural_frames(70, (20, 30), seed=0)
    with serving(tmp_path) as server:
        model = server.repository.find("tiny", "", None)
        run = model.executor._run

        def run_and_change(*args: object) -> object:
            features = run(*args)
            model.executor._run = run
            build_tiny(tmp_path, version=2)
            server.repository.load("tiny")
            return features

        async def use(client: AsyncEncoderClient) -> None:
            model.executor._run = run_and_change
            got = (await client(frames))["pooled"]
            np.testing.assert_allclose(got, load_encoder(tmp_path / "tiny" / "2")(frames)["pooled"], atol=1e-5)

        with_client(server, use, follow=True)
