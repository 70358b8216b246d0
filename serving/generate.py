"""Generate serving/robossl_client/_proto from inference.proto: `python serving/generate.py`, with grpcio-tools.

The generated code asks for a protobuf at least as new as the one inside grpcio-tools, so grpcio-tools is held at a
version that protobuf 6.31 and 7 both accept.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

CLIENT = Path(__file__).parent / "robossl_client"


def generate(out: Path) -> int:
    """Write inference_pb2.py and its types to `out/robossl_client/_proto`; returns protoc's exit code."""
    from grpc_tools import protoc

    # the path below `out` becomes the name in protobuf's pool: robossl_client/_proto/inference.proto
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
