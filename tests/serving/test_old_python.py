"""The client under Python 3.10, as robots with ROS 2 Humble have it, against a server of this Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT
from robossl_serving.server import ServerSettings
from serving_kit import serving

NEEDS = "import numpy, grpc, google.protobuf, sys; print(sys.version_info[:2])"


def test_the_client_runs_under_python_3_10(tiny_models: Path) -> None:
    python = os.environ.get("ROBOSSL_PYTHON310") or shutil.which("python3.10")
    has = subprocess.run([python, "-c", NEEDS], capture_output=True, text=True) if python else None
    if has is None or has.stdout.strip() != "(3, 10)":
        pytest.skip("needs a Python 3.10 with numpy, grpcio and protobuf, named by ROBOSSL_PYTHON310")
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        done = subprocess.run(
            [str(python), "-W", "error", str(ROOT / "tests" / "kits" / "client_check.py"), f"127.0.0.1:{server.port}"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "serving")},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout.startswith("checked by Python 3.10"), done.stderr
