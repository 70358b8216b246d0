"""The `serve` command: models from a folder to control loops, until a signal."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

from robossl.errors import InputError
from robossl_serving.limits import Limits
from robossl_serving.logs import log_to_stderr
from robossl_serving.model import SessionSettings
from robossl_serving.provider import ProviderChoice, choose_provider
from robossl_serving.security import Security
from robossl_serving.server import EncoderServer, ServerSettings

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def serve(
    models: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    provider: ProviderChoice = "auto",
    threads: int | None = None,
    shared_memory: bool = False,
    poll_seconds: float = 0.0,
    metrics_port: int | None = None,
    streams: int = 256,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    client_ca: Path | None = None,
    token: Path | None = None,
    admin_token: Path | None = None,
    drain_seconds: float = 10.0,
) -> None:
    """Serve exported encoders over gRPC (Open Inference Protocol), the newest frame of every robot first.

    The newest version of each model is loaded. SIGHUP looks for newer ones; SIGTERM answers what was accepted and ends.

    Args:
        models: The folder that `robossl export --out` wrote.
        host: Where to listen; 0.0.0.0 for other machines, which then want TLS or a trusted network.
        port: Its port; 0 for any free one.
        provider: What onnxruntime runs on; one named is that one or an error, auto is CUDA where there is a device.
        threads: Threads of a run on the CPU; one a core unless given.
        shared_memory: Let callers on this host pass frames in shared memory.
        poll_seconds: How often to look for new versions; 0 for never.
        metrics_port: Serve Prometheus metrics there.
        streams: How many streams may be open at the same time; a robot has one for each camera.
        tls_cert: PEM file with the server's certificate.
        tls_key: PEM file with its key.
        client_ca: PEM file of the authority whose certificates callers must show.
        token: File with the token that callers must send.
        admin_token: File with the token for loading and unloading; without it only this host may.
        drain_seconds: How long accepted requests may take when the server ends.

    Raises:
        InputError: no model can be served, or the settings do not fit together.
        ResourceError: a port is taken.
    """
    if streams < 1:
        raise InputError(f"--streams is {streams}; allowed are 1 and more")
    security = Security(tls_cert, tls_key, client_ca, token, admin_token)
    is_local = host.startswith(("127.", "unix:")) or host in ("localhost", "::1", "[::1]")
    if not is_local and tls_cert is None and (token or admin_token):
        raise InputError(
            f"a token would cross the network of {host} for all to read; pass --tls-cert and --tls-key too"
        )
    session = SessionSettings(provider=choose_provider(provider), threads=threads or os.cpu_count() or 1)
    settings = ServerSettings(
        host=host,
        port=port,
        metrics_port=metrics_port,
        session=session,
        limits=Limits(streams=streams),
        security=security,
        shared_memory=shared_memory,
        poll_seconds=poll_seconds,
    )
    log_to_stderr()
    _keep_freed_memory()
    print(f"loading the models of {models} on {session.provider}, {session.threads} threads", flush=True)
    server = EncoderServer(models, settings)
    stop, look = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: look.set())
    server.start()
    for model in server.repository.models():
        print(f"  {model.card.name} version {model.card.version}, {model.costs.of(1) * 1e3:.1f} ms a frame")
    how = "TLS" if tls_cert else "no TLS" if is_local else "no TLS: anyone on the network can ask"
    print(f"serving on {host}:{server.port} ({how}); end with Ctrl-C", flush=True)
    while not stop.wait(0.5):
        if look.is_set():
            look.clear()
            server.look()
    print("draining", flush=True)
    server.stop(grace_s=drain_seconds)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of frames for the next ones: mapping it anew costs more than copying."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 64 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)
        libc.mallopt(_M_ARENA_MAX, 4)  # else every thread that decoded a large picture keeps the memory for itself
