"""Start the servers of benchmarks as processes on free ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

ECHO = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
reply = bytes(int(sys.argv[1]))

def unary(request, context):
    return reply

def stream(requests, context):
    for _ in requests:
        yield reply

handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Stream": grpc.stream_stream_rpc_method_handler(stream),
}
server = grpc.server(ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"serving on 127.0.0.1:{port} ", flush=True)
server.wait_for_termination()
"""


def echo_server(reply_bytes: int) -> AbstractContextManager[int]:
    """Start a bare grpcio server whose replies have `reply_bytes` bytes; yield its port."""
    return started([sys.executable, "-c", ECHO, str(reply_bytes)])


def robossl_server(models: Path, *options: str) -> AbstractContextManager[int]:
    """Start `robossl serve` on one thread; yield its port."""
    return started([sys.executable, "-m", "robossl", "serve", str(models), "--port", "0", "--threads", "1", *options])


@contextmanager
def started(command: Sequence[str]) -> Iterator[int]:
    """Start a server, wait for its line "serving on HOST:PORT ", yield its port."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"serving on .*:(\d+) ", line):
                yield int(found[1])
                return
        raise SystemExit(f"{' '.join(command[:4])} ... did not start; run it by hand to see why")
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
