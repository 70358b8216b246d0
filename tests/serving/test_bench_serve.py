"""The load generator against a real server: it counts what comes, says what is lost, and keeps to its pace."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from robossl_client.messages import Reply
from robossl_serving.bench.command import bench_serve
from robossl_serving.bench.figures import Percentiles, figures_of
from robossl_serving.bench.load import Load, frame_times
from robossl_serving.bench.ticks import Ticks
from robossl_serving.bench.trace import Trace
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import serving

from robossl.cli.main import main
from robossl.errors import InputError


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


def bench(server: EncoderServer, out: Path, **options: object) -> dict[str, object]:
    settings = {"seconds": 0.6, "frame_hw": (60, 80)} | options
    said = bench_serve(f"127.0.0.1:{server.port}", out=out, **settings)
    assert said.startswith(f"tiny version 2 at 127.0.0.1:{server.port}: ")
    with Image.open(out / "bench.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20, "something is drawn"
    content: dict[str, object] = json.loads((out / "bench.json").read_text())
    return content


@pytest.mark.parametrize("transport", ["unary", "stream", "shared-memory", "shared-stream"])
def test_every_frame_of_robots_at_a_pace_is_served_or_counted_as_lost(
    server: EncoderServer, tmp_path: Path, transport: str
) -> None:
    content = bench(server, tmp_path, robots=2, hz=20.0, transport=transport)
    control = content["classes"]["control"]
    assert list(content["classes"]) == ["control"]
    assert control["clients"] == 2
    assert sum(control["served"]) + sum(control["lost"].values()) == pytest.approx(24, abs=1)
    assert min(control["served"]) > 0, "how many depends on the machine: benchmarks/bench_serving.py"
    assert 0 < control["infer_ms"]["p50"] <= control["server_ms"]["p50"] <= control["latency_ms"]["p50"]
    assert control["latency_ms"]["p50"] <= control["age_ms"]["p50"]


def test_a_closed_loop_asks_anew_when_it_is_answered(server: EncoderServer, tmp_path: Path) -> None:
    content = bench(server, tmp_path, pattern="closed", robots=1, batch_clients=1, batch_size=3, seconds=2.0)
    control, batch = content["classes"]["control"], content["classes"]["batch"]
    assert content["load"]["hz"] is None
    assert control["served"][0] > 1
    assert sum(control["lost"].values()) <= 1, "only the last one's answer may come too late"
    assert batch["served"][0] % 3 == 0 < batch["served"][0]


def test_overload_is_in_times_of_what_can_be_served(server: EncoderServer, tmp_path: Path) -> None:
    content = bench(
        server, tmp_path, pattern="overload", robots=3, times=2.0, arrivals="jittered", frame_hw=(240, 320), seconds=1.5
    )
    assert content["load"]["hz"] == pytest.approx(2 * content["capacity_per_s"] / 3)
    control = content["classes"]["control"]
    assert len(control["served"]) == 3 and all(control["served"])
    assert sum(control["lost"].values()) > 0


def test_every_client_has_a_connection_of_its_own(server: EncoderServer, tmp_path: Path) -> None:
    content = bench(server, tmp_path, robots=10, hz=10.0)  # 8 streams are the most of one connection
    assert all(content["classes"]["control"]["served"])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("127.0.0.1:1",), 1, "127.0.0.1:1: "),
        (("--robots", "0"), 2, "there is no client"),
        (("--hz", "0"), 2, "must be finite and above 0"),
        (("--token", "/nowhere"), 2, "cannot read /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(
    options: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench-serve", *options]) == code
    assert words in capsys.readouterr().err


def test_a_wrong_number_is_the_only_one_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-serve", "127.0.0.1:1", "--frame-hw", "0", "224"]) == 2
    assert capsys.readouterr().err == "robossl: --frame-hw must be finite and above 0, got 0 224\n"


def test_the_words_of_the_report_are_explained(server: EncoderServer, tmp_path: Path) -> None:
    options = {"seconds": 1.0, "frame_hw": (240, 320), "transport": "unary", "hz": 20_000.0}
    said = bench_serve(f"127.0.0.1:{server.port}", out=tmp_path, **options)
    assert " skipped" in said and "skipped: not sent, because the next frame was due\n" in said
    assert "; evenness 1.000\n" in said and "evenness: Jain's index, 1 if all clients got the same\n" in said
    assert "OverloadedError: " not in said, "it did not occur"
    said = bench_serve(f"127.0.0.1:{server.port}", out=tmp_path, pattern="overload", **options)
    assert re.search(r"capacity \d+\.\d frames/s, measured before the load; \d+% of it was served\n", said)


def test_a_folder_that_cannot_be_written_is_refused_before_the_load(server: EncoderServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file \(.*choose another --out"):
        bench_serve(f"127.0.0.1:{server.port}", out=tmp_path / "file", seconds=3600.0)


def test_frames_come_when_they_should() -> None:
    rng = np.random.default_rng(0)
    loads = {each: Load(robots=4, hz=10.0, seconds=9.5, arrivals=each) for each in ("locked", "spread", "jittered")}
    times = {each: [frame_times(load, robot, rng) for robot in range(4)] for each, load in loads.items()}
    assert all(len(robot) == 100 for each in times.values() for robot in each)
    assert np.array_equal(times["locked"][0], times["locked"][3])
    np.testing.assert_allclose(times["spread"][2] - times["spread"][0], 0.05)
    assert len({round(float(robot[0]), 3) for robot in times["jittered"]}) == 4
    assert 0.001 < np.diff(times["jittered"][0]).std() < 0.01


def test_a_frame_that_was_overtaken_is_not_asked_for() -> None:
    begin_s = time.monotonic()
    trace = Trace("control", "arm", begin_s, begin_s + 2.5)
    ticks = Ticks(begin_s, begin_s + np.arange(5) / 2, trace)  # a busy machine may be late by less than half a second
    got = []
    for tick_s in ticks.wait_by(lambda until_s: time.sleep(max(0, until_s - time.monotonic()))):
        got.append(round(2 * (tick_s - begin_s)))
        time.sleep(1.25 if len(got) == 1 else 0)
    assert got[0] == 0 and got[-1] == 4 and 1 not in got  # overtaken; a stalled machine may overtake more
    assert trace.num_lost == {"skipped": 5 - len(got)}


def test_figures_leave_out_the_warm_up_and_count_what_was_dropped() -> None:
    trace = Trace("control", "arm", 10.0, 12.0)
    reply = Reply({}, "1", "tiny", 1, "", "", 0.02, 9000, 0, 1000, 8000, 0)
    for captured_s in (9.9, 10.0, 10.5, 11.0):
        trace.sent(captured_s)
    for captured_s in (9.9, 10.5):
        trace.served(captured_s, captured_s + 0.005, reply)
    got = figures_of([trace], "control")
    assert got is not None
    assert (got.sent_per_s, got.goodput_per_s, got.served, got.lost) == (1.5, 0.5, (1,), {"dropped": 2})
    assert (got.age_ms.p50, got.latency_ms.p50, got.server_ms.p50, got.infer_ms.p50) == (20.0, 15.0, 9.0, 8.0)
    assert figures_of([trace], "batch") is None
    assert str(Percentiles.of([])) == "0.00 / 0.00 / 0.00"
