"""Generate serving/robossl_client/_proto from inference.proto: `python serving/generate.py` (needs grpcio-tools).

The generated code needs a protobuf at least as new as the one inside grpcio-tools, so grpcio-tools is pinned to a
version whose code works with protobuf 6.31 and 7.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

CLIENT = Path(__file__).parent / "robossl_client"


def generate(out: Path) -> int:
    """Write inference_pb2.py and its types to `out/robossl_client/_proto`; return protoc's exit code."""
    from grpc_tools import protoc

    # The path below `out` becomes the file's name in protobuf's pool.
    source = CLIENT / "protos"
    return int(
        protoc.main(
            [
                "protoc",
                f"--proto_path=robossl_client/_proto={source}",
                f"--proto_path={files('grpc_tools') / '_proto'}",
                f"--python_out={out}",
                f"--pyi_out={out}",
                "robossl_client/_proto/inference.proto",
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(generate(CLIENT.parent))
