"""Start Triton's server from the wheel nvidia-pytriton, with the encoder in its Python backend."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

PEERS = Path(__file__).resolve().parent
CONFIG = """name: "{name}"
backend: "python"
max_batch_size: 0
input {{ name: "frames" data_type: TYPE_UINT8 dims: [-1, -1, -1, 3] }}
output {{ name: "pooled" data_type: TYPE_FP32 dims: [-1, 512] }}
instance_group {{ count: 1 kind: KIND_CPU }}
"""


def prepare(venv: Path, scratch: Path, *, name: str) -> Path:
    """Copy the server, add the stub for this Python, write a repository of one model; return the server's folder."""
    wheel = next((venv / "lib").glob("python3*/site-packages/pytriton/tritonserver"))
    server = scratch / "tritonserver"
    shutil.copytree(wheel, server, symlinks=True)
    stub = server / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    shutil.copy(stub, server / "backends" / "python")
    model = scratch / "repository" / name
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG.format(name=name))
    shutil.copy(PEERS / "triton_model.py", model / "1" / "model.py")
    shutil.copy(PEERS / "encoder.py", model / "1")  # on the path of the backend's interpreter
    return server


def command(server: Path, scratch: Path, *, port: int) -> list[str]:
    """Return the command that starts Triton with gRPC alone."""
    return [
        *(str(server / "bin" / "tritonserver"), "--model-repository", str(scratch / "repository")),
        *("--backend-directory", str(server / "backends"), "--allow-http", "false", "--allow-metrics", "false"),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(port)),
    ]


def environment(venv: Path, model: Path) -> dict[str, str]:
    """Return variables that point Triton to its libraries and to the packages of `venv`."""
    site = next((venv / "lib").glob("python3*/site-packages"))
    libraries = (sysconfig.get_config_var("LIBDIR"), site / "nvidia_pytriton.libs")
    return os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "ROBOSSL_MODEL": str(model),
    }
