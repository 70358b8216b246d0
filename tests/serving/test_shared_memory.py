"""Shared memory at the server: only our own files, only inside regions, and no crash when a file shrinks or goes."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from robossl_client._proto import inference_pb2 as pb
from robossl_client.blocking_runtime import BlockingRuntime
from robossl_client.client import EncoderClient
from robossl_client.errors import ServerFailedError
from robossl_client.shared import FOLDER, SharedFile
from robossl_client.shared_frames import SharedPlaces
from robossl_client.waiting import run
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Raw, calling, infer_request, own_address, serving, status_of


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


@pytest.fixture
def call(server: EncoderServer) -> Iterator[Raw]:
    with calling(server) as call:
        yield call
    server._memory.unregister("")


@pytest.fixture
def region(call: Raw) -> Iterator[SharedFile]:
    region = SharedFile(FRAMES.nbytes)
    region.write(FRAMES.tobytes())
    call("SystemSharedMemoryRegister", _register(region.key, FRAMES.nbytes))
    yield region
    region.close()


def _register(key: str, size: int, *, name: str = "r", offset: int = 0) -> pb.SystemSharedMemoryRegisterRequest:
    return pb.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=size, offset=offset)


def _request(size: int = FRAMES.nbytes, offset: int = 0) -> pb.ModelInferRequest:
    message = infer_request()
    del message.raw_input_contents[:]
    where = message.inputs[0].parameters
    where["shared_memory_region"].string_param = "r"
    where["shared_memory_byte_size"].int64_param = size
    where["shared_memory_offset"].int64_param = offset
    return message


def test_a_file_that_shrinks_or_goes_is_an_error_and_not_a_crash(call: Raw, region: SharedFile) -> None:
    assert call("ModelInfer", _request()).raw_output_contents == call("ModelInfer", infer_request()).raw_output_contents
    os.truncate(FOLDER / region.name, 100)
    assert "smaller than the region" in status_of(lambda: call("ModelInfer", _request()))[1]
    (FOLDER / region.name).unlink()
    assert "was removed" in status_of(lambda: call("ModelInfer", _request()))[1]


@pytest.mark.parametrize("key", ["/etc/passwd", "../../etc/passwd", "/robossl-../x", "passwd", "/robossl-missing", ""])
def test_only_our_own_files_are_opened(call: Raw, key: str) -> None:
    assert status_of(lambda: call("SystemSharedMemoryRegister", _register(key, 10)))[0] == "INVALID_ARGUMENT"


def test_links_folders_and_sizes_that_are_not_there_are_refused(call: Raw, region: SharedFile, tmp_path: Path) -> None:
    link = FOLDER / f"robossl-{os.getpid()}-link"
    (tmp_path / "secret").write_bytes(b"x" * 100)
    link.symlink_to(tmp_path / "secret")
    try:
        for key, size, offset in ((link.name, 10, 0), (region.key, FRAMES.nbytes + 1, 0), (region.key, 10, 2**63)):
            ask = _register(key, size, name="q", offset=offset)
            assert status_of(lambda ask=ask: call("SystemSharedMemoryRegister", ask))[0] == "INVALID_ARGUMENT"
    finally:
        link.unlink()
    twice = _register(region.key, 10)
    assert status_of(lambda: call("SystemSharedMemoryRegister", twice))[0] == "ALREADY_EXISTS"


@pytest.mark.parametrize(("size", "offset"), [(43_201, 0), (43_200, 1), (43_200, -1), (2**62, 2**62), (-5, 0), (10, 0)])
def test_places_outside_a_region_or_of_another_size_are_refused(
    call: Raw, region: SharedFile, size: int, offset: int
) -> None:
    assert status_of(lambda: call("ModelInfer", _request(size, offset)))[0] == "INVALID_ARGUMENT"


def test_an_output_that_does_not_fit_is_refused(call: Raw, region: SharedFile) -> None:
    message = infer_request()
    output = message.outputs.add(name="pooled")
    output.parameters["shared_memory_region"].string_param = "r"
    output.parameters["shared_memory_byte_size"].int64_param = 100
    assert status_of(lambda: call("ModelInfer", message)) == (
        "INVALID_ARGUMENT",
        "the output has 576 bytes, its shared memory 100",
    )


@pytest.fixture
def huge(call: Raw) -> Iterator[str]:
    """A region of 100 MiB that take no memory."""
    name = f"robossl-{os.getpid()}-huge"
    (FOLDER / name).touch()
    os.truncate(FOLDER / name, 100 * 2**20)
    call("SystemSharedMemoryRegister", _register(name, 100 * 2**20))
    yield name
    (FOLDER / name).unlink()


@pytest.mark.parametrize(("datatype", "max_mib"), [("UINT8", 64), ("BYTES", 32)])
def test_more_than_the_limits_is_not_even_read(call: Raw, huge: str, datatype: str, max_mib: int) -> None:
    message = _request(max_mib * 2**20 + 1)
    if datatype == "BYTES":
        message.inputs[0].datatype = datatype
        message.inputs[0].shape[:] = [3]
    wanted = f"the input has {max_mib * 2**20 + 1} bytes in shared memory; at most {max_mib * 2**20} are allowed"
    assert status_of(lambda: call("ModelInfer", message)) == ("INVALID_ARGUMENT", wanted)


def _with_output(offset: int = 0) -> pb.ModelInferRequest:
    message = infer_request()
    message.outputs.add(name="pooled")
    where = message.outputs[0].parameters
    where["shared_memory_region"].string_param = "r"
    where["shared_memory_byte_size"].int64_param = 576
    where["shared_memory_offset"].int64_param = offset
    return message


def test_one_output_that_cannot_be_written_does_not_end_the_stream(call: Raw, huge: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 2**20, hard))  # of what any file may come to by a write
    try:
        bad, good = call.stream(iter([_with_output(80 * 2**20), _with_output()]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert bad.error_message == "the server failed on this call; its log says why"
    assert (bad.infer_response.id, bad.infer_response.parameters["status"].string_param) == ("7", "INTERNAL")
    assert good.infer_response.model_name == "tiny"


def test_regions_are_for_callers_on_this_host(tiny_models: Path) -> None:
    settings = ServerSettings(host="0.0.0.0", port=0, shared_memory=True)
    region = SharedFile(FRAMES.nbytes)
    region.write(FRAMES.tobytes())
    try:
        with serving(tiny_models, settings) as server, calling(server) as call:
            call("SystemSharedMemoryRegister", _register(region.key, FRAMES.nbytes))
            with calling(server, host=own_address()) as away:
                for message in (_request(), _with_output()):
                    assert call("ModelInfer", message).model_name == "tiny"
                    code, said = status_of(lambda message=message: away("ModelInfer", message))
                    assert (code, "on the server's own host" in said) == ("PERMISSION_DENIED", True)
                    (reply,) = away.stream(iter([message]))
                    assert reply.infer_response.parameters["status"].string_param == "PERMISSION_DENIED"
                assert away("ModelInfer", infer_request()).model_name == "tiny"
    finally:
        region.close()


def test_it_is_off_unless_asked_for(tiny_models: Path) -> None:
    with serving(tiny_models) as server, calling(server) as call:
        ask = _register("/robossl-x", 10)
        assert status_of(lambda: call("SystemSharedMemoryRegister", ask))[0] == "UNIMPLEMENTED"
        assert "no shared memory" in status_of(lambda: call("ModelInfer", _request()))[1]
        target = f"127.0.0.1:{server.port}"
        with (
            EncoderClient(target, shared_memory=True) as client,
            pytest.raises(ServerFailedError, match="no shared memory"),
        ):
            client.encode(FRAMES)


def test_a_stream_passes_every_frame_by_shared_memory_and_leaves_nothing(server: EncoderServer) -> None:
    before = set(FOLDER.glob(f"robossl-{os.getpid()}-*"))
    with EncoderClient(f"127.0.0.1:{server.port}", robot="arm", shared_memory=True) as client:
        small, large = FRAMES[:1, ::2, ::2], FRAMES[1:2]
        wanted = [client.encode(frame).features["pooled"] for frame in (small, large)]
        with client.latest() as stream:
            for frame, features in zip((small, large, small), (*wanted, wanted[0]), strict=True):
                for _ in range(6):  # more than there are places
                    stream.send(frame)
                    reply = stream.take(wait_ms=30_000)
                    assert reply is not None
                    assert (reply.features["pooled"] == features).all()
            (stream_region,) = [each for each in server._memory.regions() if each.size == 4 * large.nbytes]
            assert stream_region.key[1:] in {path.name for path in FOLDER.iterdir()}
    assert server._memory.regions() == []
    assert set(FOLDER.glob(f"robossl-{os.getpid()}-*")) == before


def test_only_regions_that_nobody_holds_are_swept() -> None:
    dead = 2**22 + 1  # no process has such a number: it stands for one of another container
    held, name = SharedFile(10), FOLDER / f"robossl-{dead}-0123abcd"
    (FOLDER / held.name).rename(name)
    try:
        SharedFile(10).close()
        assert name.exists()
        held.close()
        SharedFile(10).close()
        assert not name.exists(), "what a killed process left is removed"
    finally:
        name.unlink(missing_ok=True)


def test_a_place_is_not_written_again_before_its_frame_is_answered() -> None:
    asked: list[str] = []

    async def ask(call: str, /, **fields: object) -> None:
        asked.append(call)

    places = SharedPlaces(ask, BlockingRuntime(), num_places=2)
    put = [run(places.put(str(number), FRAMES[:1])) for number in range(3)]
    assert [where and where.get("shared_memory_offset", 0) for where in put] == [0, FRAMES[:1].nbytes, None]
    run(places.free("0"))
    assert run(places.put("3", FRAMES[:1])) == put[0]
    assert run(places.put("4", np.concatenate([FRAMES, FRAMES]))) is None, (
        "a larger region waits until all are answered"
    )
    for number in ("1", "3"):
        run(places.free(number))
    larger = run(places.put("5", np.concatenate([FRAMES, FRAMES])))
    assert larger is not None and larger["shared_memory_region"] != put[0]["shared_memory_region"]
    run(places.close())
    assert run(places.put("6", FRAMES[:1])) is not None, "after a lost connection it is made anew"
    run(places.close(for_good=True))
    assert run(places.put("7", FRAMES[:1])) is None
    register, unregister = "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"
    assert asked == [register, unregister] * 3
