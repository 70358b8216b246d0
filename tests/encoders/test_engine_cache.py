"""TensorRT's engines are built once for a model, a GPU and a set of versions, also if two servers start together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robossl.encoders.engine_cache import EnginePlace, default_cache, engine_place, with_engines
from robossl.encoders.gpus import GpuInfo
from robossl.errors import InputError

H200 = GpuInfo("NVIDIA H200", (9, 0))
VERSIONS = {"onnxruntime": "1.31.1", "cuda": "13.0", "tensorrt": "10.13.3"}
OPTIONS = {"trt_fp16_enable": "False", "trt_engine_cache_path": "anywhere"}
# Stands for onnxruntime with TensorRT: it reads the engine of the folder, or builds one and writes it in place.
PROGRAM = """
import sys, time
from pathlib import Path
from robossl.encoders.engine_cache import with_engines
sys.path.insert(0, sys.argv[1])
from test_engine_cache import build, place_in

print(with_engines(place_in(Path(sys.argv[2])), lambda folder: build(folder, float(sys.argv[3]))))
"""


def place_in(cache: Path, **changes: object) -> EnginePlace:
    given = {"model_sha256": "ab" * 32, "gpu": H200, "versions": VERSIONS, "options": OPTIONS} | changes
    return engine_place(cache, **given)  # type: ignore[arg-type]


def build(folder: Path, seconds: float = 0.0) -> str:
    """What onnxruntime does when it opens a model on TensorRT."""
    engine = folder / "graph_sm90.engine"
    if engine.exists():
        if engine.read_text() != "whole":
            raise RuntimeError("cannot deserialize")
        return "read"
    with engine.open("w") as file:
        file.write("who")
        file.flush()
        time.sleep(seconds)
        file.write("le")
    timings = folder / "cache_sm90.timing"
    known = timings.read_text() if timings.exists() else ""
    timings.write_text(known + "+")
    return f"built with timings {known!r}"


def start(cache: Path, seconds: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(cache), str(seconds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.splitlines()[-1]


def test_an_engine_is_built_once_and_read_then(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = place_in(tmp_path)
    with caplog.at_level(logging.INFO, "robossl.encoders"):
        assert with_engines(place, build) == "built with timings ''"
    began, ended = caplog.records
    assert "building an engine" in began.message and "built an engine" in ended.message
    assert vars(ended)["seconds"] >= 0 and vars(ended)["folder"] == str(place.folder)
    assert with_engines(place, build) == "read"
    assert {path.name for path in place.folder.iterdir()} == {"graph_sm90.engine", "key.json"}
    assert '"NVIDIA H200-sm90"' in (place.folder / "key.json").read_text()


def test_another_model_gpu_version_or_option_has_another_engine(tmp_path: Path) -> None:
    other_options = {**OPTIONS, "trt_fp16_enable": "True"}
    places = [
        place_in(tmp_path),
        place_in(tmp_path, model_sha256="cd" * 32),
        place_in(tmp_path, gpu=GpuInfo("NVIDIA L4", (8, 9))),
        *(place_in(tmp_path, versions={**VERSIONS, name: "0"}) for name in VERSIONS),
        place_in(tmp_path, options=other_options),
        place_in(tmp_path, tf32=True),
    ]
    assert len({place.folder for place in places}) == len(places)
    assert place_in(tmp_path, options={**OPTIONS, "trt_engine_cache_path": "elsewhere"}) == places[0]
    # Timings are those of the kernels, so the next model on this GPU builds faster.
    assert with_engines(places[0], build) == "built with timings ''"
    assert with_engines(places[1], build) == "built with timings '+'"
    assert with_engines(places[2], build) == "built with timings ''"


def test_two_servers_that_start_together_build_once(tmp_path: Path) -> None:
    servers = [start(tmp_path, 1.0) for _ in range(2)]
    assert sorted(map(said, servers)) == ["built with timings ''", "read"]


def test_a_builder_that_is_killed_leaves_no_engine(tmp_path: Path) -> None:
    place, killed = place_in(tmp_path), start(tmp_path, 60.0)
    for _ in range(600):
        if any(place.machine.glob(".building-*/*.engine")):
            break
        time.sleep(0.05)
    assert not place.is_built
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert with_engines(place, build) == "built with timings ''"
    assert not any(place.machine.glob(".building-*")) and place.is_built


def test_a_damaged_engine_is_built_again_and_a_failed_build_keeps_nothing(tmp_path: Path) -> None:
    place = place_in(tmp_path)

    def fail(folder: Path) -> str:
        build(folder)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        with_engines(place, fail)
    assert [path.name for path in place.machine.iterdir()] == [".lock"]
    with_engines(place, build)
    (place.folder / "graph_sm90.engine").write_text("who")
    assert with_engines(place, build) == "built with timings '+'"
    assert with_engines(place, build) == "read"


def test_a_model_without_engines_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert with_engines(place_in(tmp_path), lambda folder: "on CUDA") == "on CUDA"
    assert "TensorRT took no part of the model" in caplog.text and not place_in(tmp_path).is_built


def test_the_cache_is_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "robossl" / "engines"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file/.*choose another --gpu.cache"):
        with_engines(place_in(tmp_path / "file"), build)
    assert os.listdir(tmp_path) == ["file"]
