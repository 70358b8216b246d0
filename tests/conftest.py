"""Fixtures: a small store made of the real clips the repository ships, and where the shared data lie."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from places import CLIPS, ROOT
from serving_kit import build_tiny

from robossl.common.malloc import keep_freed_memory
from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test that failed is named at once, for runs that somebody ends before their summary."""
    if report.failed:
        print(f"\nFAILED {report.nodeid}", flush=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU on a machine without one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors: threads only wait for each other, here and in the processes that tests start."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_freed_memory()


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """Undo what libsvtav1 does when root encodes with it: it makes the caller real-time (SCHED_FIFO 99).

    Threads and processes started later inherit that, and one that spins then stops everything else on the machine.
    """
    yield
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def clip_store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the shipped DROID clips, short side 96."""
    out = tmp_path_factory.mktemp("stores") / "clips"
    ingest((CLIPS,), out=out, short_side=96, workers=1)
    return out


@pytest.fixture
def clip_store(clip_store_path: Path) -> Store:
    """The same, opened."""
    return open_store(clip_store_path)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `tiny` in two versions, which are two encoders. Copy it to change it."""
    out = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        build_tiny(out, version=version)
    return out


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Find a folder of the shared data, or skip the test."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"needs ../shared/data/{name}")
        return path

    return find
