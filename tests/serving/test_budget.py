"""Dear work behind cheap requests: many scans, large pictures, and callers that leave meanwhile."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import simplejpeg
from dear_images import flat_png, many_parts, many_scans, two_headers
from PIL import Image, ImageFile
from robossl_client._proto import inference_pb2 as pb
from robossl_client.wire import put_values
from robossl_serving.budget import MemoryBudget, MemoryClaim
from robossl_serving.images import inspect_images, jpeg_markers
from robossl_serving.infer import Inference
from robossl_serving.limits import MIB, Limits
from robossl_serving.refused import RefusedError
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Raw, build_tiny, calling, eventually, server_process, serving, status_of

SIDE = 4700  # the largest square that a call may hold


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sparse")
    build_tiny(out, version=1, every=16)
    return out


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[EncoderServer]:
    with serving(models, ServerSettings(port=0)) as server:
        yield server


@pytest.fixture
def call(server: EncoderServer) -> Iterator[Raw]:
    with calling(server) as call:
        yield call


def images(*encoded: bytes, **parameters: object) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="tiny")
    message.inputs.add(name="frames", datatype="BYTES", shape=[len(encoded)]).contents.bytes_contents.extend(encoded)
    put_values(message.parameters, parameters)
    return message


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(FRAMES[0]).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "num"),
    [
        (simplejpeg.encode_jpeg(FRAMES[0]), 1),
        (jpeg(progressive=True), 10),
        (jpeg(progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 50), 10),
        (jpeg(exif=b"Exif\0\0" + b"\xff\xda" * 50), 1),
        (jpeg() + b"\xff\xda" * 50, 1),
        (jpeg(progressive=True, restart_marker_rows=1), 10),
        (many_scans(96, num_scans=3), 3),
        (many_scans(96, num_scans=883), 883),
        (b"\xff\xd8" + b"\xff\xda" * 2, 1),
    ],
    ids=[
        "baseline",
        "progressive",
        "thumbnail",
        "baseline-thumbnail",
        "trailer",
        "restarts",
        "three",
        "most",
        "broken",
    ],
)
def test_scans_are_counted_from_markers(image: bytes, num: int) -> None:
    assert list(jpeg_markers(image)).count(0xDA) == num


@pytest.mark.parametrize(
    ("encoded", "is_served"),
    [
        ([many_scans(SIDE, num_scans=883)], False),
        ([many_scans(SIDE, num_scans=13)], False),
        ([many_scans(SIDE, num_scans=12)], True),
        ([many_scans(64, num_scans=65)], False),
        ([many_scans(512, num_scans=64)], True),
        ([many_scans(512, num_scans=64)] * 17, False),
        ([jpeg(progressive=True)] * 64, True),
    ],
    ids=["dear", "large", "largest", "small", "smaller", "together", "usual"],
)
def test_jpegs_of_too_many_scans_are_refused_before_they_are_decoded(
    call: Raw, encoded: list[bytes], is_served: bool
) -> None:
    if is_served:
        assert call("ModelInfer", images(*encoded), timeout=60).model_name == "tiny"
        return
    began_s = time.thread_time()
    with pytest.raises(RefusedError, match="scans"):
        inspect_images(encoded, limits=Limits())
    assert time.thread_time() - began_s < 0.5
    code, said = status_of(lambda: call("ModelInfer", images(*encoded), timeout=60))
    assert (code, "not progressive" in said) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("kind", ["markers", "segments", "chunks"])
def test_images_of_very_many_parts_are_refused_at_once(call: Raw, kind: str) -> None:
    inspect_images([many_parts(kind, 10_000)], limits=Limits()).decode(lambda: None)
    for encoded in ([many_parts(kind, 2_000_000)], [many_parts(kind, 10_000)] * 64):
        began_s = time.thread_time()
        with pytest.raises(RefusedError, match="more than 16384 markers or chunks"):
            inspect_images(encoded, limits=Limits())
        assert time.thread_time() - began_s < 0.5
    assert status_of(lambda: call("ModelInfer", images(many_parts(kind, 20_000))))[0] == "INVALID_ARGUMENT"


def test_a_png_of_two_headers_is_refused_before_the_larger_is_decoded(
    call: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    encoded = two_headers((8, 8), (9000, 9000))
    with pytest.raises(RefusedError, match="damaged"):
        inspect_images([encoded], limits=Limits()).decode(lambda: None)
    assert status_of(lambda: call("ModelInfer", images(encoded))) == ("INVALID_ARGUMENT", "an image is damaged")


@pytest.mark.parametrize("leaves", ["before", "between", "late"])
def test_nothing_is_decoded_for_a_caller_that_left(server: EncoderServer, leaves: str) -> None:
    budget = MemoryBudget(Limits())
    inference = Inference(server.repository, Limits(), None, budget)
    outcomes = server.repository.models()[0].statistics.kinds["control"].outcomes
    before, asked = dict(outcomes), 0

    def is_gone() -> bool:
        nonlocal asked
        asked += 1
        return leaves == "before" or (leaves == "between" and asked > 2)

    with pytest.raises(RefusedError) as refused:
        inference.prepare(
            images(*[flat_png(64)] * 50, robot="arm"),
            left_s=0.0 if leaves == "late" else 60.0,
            peer="ipv4:127.0.0.1:1",
            on_done=lambda: None,
            is_gone=is_gone,
        )
    wanted = grpc.StatusCode.DEADLINE_EXCEEDED if leaves == "late" else grpc.StatusCode.CANCELLED
    assert refused.value.code == wanted
    assert asked == {"before": 1, "between": 3, "late": 0}[leaves], "of fifty images"
    outcome = "shed" if leaves == "late" else "cancelled"
    assert outcomes[outcome] == before.get(outcome, 0) + 1
    assert (budget.message_bytes, budget.pixel_bytes) == (0, 0)


def claim(*, is_control: bool = False, allowed_s: float = 60.0, gone: threading.Event | None = None) -> MemoryClaim:
    return MemoryClaim(is_control, time.monotonic() + allowed_s, gone.is_set if gone else lambda: False)


LIMITS = Limits(held_message_bytes=1000, held_pixel_bytes=1000, waiting=2)


def test_robots_find_room_beside_batch_requests_and_none_is_taken_beyond_the_budget() -> None:
    budget, batch, robot = MemoryBudget(LIMITS, num_decoders=4), claim(), claim(is_control=True)
    budget.take_pixels(batch, 700)
    budget.take_message(batch, 700)
    budget.take_pixels(robot, 300)
    budget.take_message(robot, 300)
    for take in (budget.take_pixels, budget.take_message):
        with pytest.raises(RefusedError, match="the most it allows") as refused:
            take(claim(is_control=True), 1)
        assert refused.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(RefusedError, match="the most it allows"):
        budget.take_message(claim(), 1)
    budget.release(robot)
    budget.release(robot)
    budget.decoded(batch, working_bytes=200)
    assert (budget.pixel_bytes, budget.message_bytes) == (500, 700)


def test_batch_requests_of_all_encoders_leave_threads_to_robots() -> None:
    budget = MemoryBudget(Limits(waiting=2))
    held = [claim() for _ in range(6)]  # two to be decoded, two to be run, one of each at it
    for each in held:
        budget.take_message(each, 1)
    with pytest.raises(RefusedError, match="too many batch requests wait"):
        budget.take_message(claim(), 1)
    for _ in range(10):
        budget.take_message(claim(is_control=True), 1)
    for _ in range(2):
        budget.release(held[0])
    budget.take_message(claim(), 1)
    with pytest.raises(RefusedError):
        budget.take_message(claim(), 1)


def test_a_request_larger_than_the_budget_is_taken_alone() -> None:
    budget = MemoryBudget(LIMITS)
    for is_control in (False, True):
        large = claim(is_control=is_control)
        budget.take_message(large, 5000)
        budget.take_pixels(large, 5000)
        budget.release(large)
    assert (budget.pixel_bytes, budget.message_bytes) == (0, 0)


def test_batch_requests_wait_for_room_and_a_decoder_in_turn() -> None:
    budget, taken, gone = MemoryBudget(LIMITS, num_decoders=1), [], threading.Event()
    first = claim()
    budget.take_pixels(first, 600)

    def take(name: str, each: MemoryClaim, num_bytes: int) -> None:
        try:
            budget.take_pixels(each, num_bytes)
            taken.append(name)
        except RefusedError as refused:
            taken.append(f"{name} {refused.code.name}")

    def wait_for(num: int) -> None:
        eventually(lambda: len(budget._queue) == num)

    with ThreadPoolExecutor(4) as pool:
        pool.submit(take, "second", claim(gone=gone), 100)
        wait_for(1)
        third = claim()
        pool.submit(take, "third", third, 700)
        wait_for(2)
        take("fourth", claim(), 1)
        assert taken == ["fourth RESOURCE_EXHAUSTED"], "as many wait as may"
        gone.set()
        wait_for(1)
        take("fifth", claim(allowed_s=0.0), 1)
        assert taken[1:] == ["second CANCELLED", "fifth DEADLINE_EXCEEDED"]
        budget.decoded(first, working_bytes=0)
        budget.release(first)
    assert taken[3:] == ["third"]
    assert budget.pixel_bytes == 700


def _resident_mib(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@pytest.mark.parametrize("robot", [None, "arm"], ids=["batch", "robots"])
def test_many_large_pictures_at_a_time_hold_bounded_memory_and_give_it_back(models: Path, robot: str | None) -> None:
    picture, limits = flat_png(SIDE), Limits()
    with server_process(models) as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = Raw(channel)
        call("ModelInfer", images(flat_png(64)))
        before_mib = _resident_mib(process.pid, "VmRSS")
        named = [{"robot": f"{robot} {number}"} if robot else {} for number in range(24)]
        calls = [call.future("ModelInfer", images(picture, timeout=10**8, **each), timeout=100) for each in named]
        errors = [each.exception() for each in calls]
        codes = {error.code().name for error in errors if error}
        assert codes <= ({"RESOURCE_EXHAUSTED"} if robot else set())
        assert errors.count(None) >= 1
        peak_mib = _resident_mib(process.pid, "VmHWM") - before_mib
        assert peak_mib < 1.5 * limits.held_pixel_bytes / MIB, "all at once would be three times as much"
        eventually(lambda: _resident_mib(process.pid, "VmRSS") <= before_mib + 150)  # freed memory goes back


def test_a_large_png_is_decoded_like_a_small_one() -> None:
    rng = np.random.default_rng(0)
    for mode, shape in (("RGB", (600, 700, 3)), ("L", (700, 600)), ("RGBA", (513, 1025, 4)), ("P", (600, 700))):
        pixels = rng.integers(0, 255, shape).astype(np.uint8)
        picture = Image.fromarray(pixels) if mode != "P" else Image.fromarray(pixels, "L").convert("P")
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        got = inspect_images([file.getvalue()], limits=Limits()).decode(lambda: None)
        np.testing.assert_array_equal(got[0], np.asarray(picture.convert("RGB")))
