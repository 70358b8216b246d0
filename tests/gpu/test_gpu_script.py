"""`make gpu`: each part writes its figures as it goes, and one that fails or takes too long does not stop the next."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from places import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu" / "run.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("gpu_run", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(out: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()]
    return [(row["part"], row["what"], row["note"]) for row in rows]


def test_a_part_that_fails_or_takes_too_long_is_a_row(script: ModuleType, tmp_path: Path) -> None:
    script.run_part("absent", tmp_path, ["--dry"], seconds=60)
    script.run_part("prepare", tmp_path, ["--dry"], seconds=0.2)
    failed, stopped = figures(tmp_path)
    assert failed[:2] == ("absent", "FAILED") and "unknown part 'absent'" in failed[2]
    assert stopped[:2] == ("prepare", "stopped") and "over its time" in stopped[2]
    table = script.markdown(tmp_path).splitlines()
    assert table[0] == "| part | what | figure | note |" and len(table) == 4


def test_parts_beyond_the_time_are_skipped_and_the_table_is_written(tmp_path: Path) -> None:
    argv = [sys.executable, str(SCRIPT), "--dry", "--minutes", "0.01", "--out", str(tmp_path)]
    done = subprocess.run([*argv, "throughput", "knn"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [row[:2] for row in figures(tmp_path)] == [(name, "skipped") for name in ("prepare", "throughput", "knn")]
    said = (tmp_path / "figures.md").read_text()
    assert said.startswith("A dry run with tiny models on the CPU") and said in done.stdout
    refused = subprocess.run([*argv, "abc"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "unknown part 'abc'; choose from prepare, throughput" in refused.stderr


def test_the_limits_fit_into_ten_minutes(script: ModuleType) -> None:
    assert sum(script.LIMITS.values()) < 600


@pytest.mark.slow
def test_all_parts_run_in_small_form_without_a_gpu(tmp_path: Path) -> None:
    argv = [sys.executable, str(SCRIPT), "--dry", "--out", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stderr
    rows = figures(tmp_path)
    assert {part for part, what, _ in rows if what == "done"} == {
        "prepare",
        "throughput",
        "onnx",
        "resume",
        "tests",
        "knn",
    }
    values = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert [row["value"] for row in values if row["what"] == "simclr bit-exact"] == [0]
    assert not (tmp_path / "work").exists()
