"""Threads and workers follow the CPUs that the process may use, not those of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import CLIPS

from robossl.common.cpus import cgroup_quota, num_cpus

ONE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""


def run_on_one_cpu(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", ONE + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def test_the_affinity_mask_counts() -> None:
    assert num_cpus() <= len(os.sched_getaffinity(0))
    assert run_on_one_cpu("from robossl.common.cpus import num_cpus; print(num_cpus())") == "1\n"


def test_a_session_and_a_server_take_as_many_threads(tiny_models: Path) -> None:
    program = """
from pathlib import Path
from robossl.encoders.onnx_session import open_session
session = open_session(Path(sys.argv[1]) / "tiny/2/model.onnx")
print(session.get_session_options().intra_op_num_threads)
"""
    assert run_on_one_cpu(program, tiny_models) == "1\n"
    program = 'from robossl.cli.main import main; main(["serve", sys.argv[1], "--port", "0", "--provider", "cpu"])'
    command = [sys.executable, "-c", ONE + program, str(tiny_models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("on cpu, 1 threads\n")
        process.kill()


def test_ingest_takes_as_many_workers(tmp_path: Path) -> None:
    program = """
from robossl.cli.main import main
main(["ingest", sys.argv[1], "--out", sys.argv[2], "--short-side", "32"])
"""
    assert "with 1 workers," in run_on_one_cpu(program, CLIPS, tmp_path / "store")


def _file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.service\n",
                "sys/fs/cgroup/a.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a.slice/b.service/cpu.max": "400000 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/docker/y\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_a_containers_quota_is_read(files: dict[str, str], wanted: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        _file(tmp_path / name, text)
    assert cgroup_quota(tmp_path) == wanted
