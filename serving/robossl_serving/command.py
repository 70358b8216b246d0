"""The `serve` command: serve the models of a folder until a signal."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from robossl.common.checks import check_range
from robossl.common.cpus import num_cpus
from robossl.encoders.providers import GpuOptions
from robossl.errors import InputError, RobosslError
from robossl_serving.dry_run import describe_plan
from robossl_serving.limits import Limits
from robossl_serving.listen import is_local
from robossl_serving.logs import json_log
from robossl_serving.model import SessionSettings
from robossl_serving.provider import ProviderChoice, choose_provider
from robossl_serving.security import Security
from robossl_serving.server import DAY_S, EncoderServer, ServerSettings

_log = logging.getLogger("robossl.serving")
_GPU = GpuOptions()

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
    gpu: GpuOptions = _GPU,
    dry_run: bool = False,
    json: bool = False,
) -> str | None:
    """Serve exported encoders over gRPC (Open Inference Protocol), the newest frame of every robot first.

    Each model's newest version is loaded, or the versions that version_policy in its config.pbtxt names. SIGHUP scans
    for new versions; SIGTERM answers the accepted requests and exits.

    Args:
        models: The folder that `robossl export --out` wrote.
        host: Address to listen on, or a host name for all addresses of that host. 0.0.0.0 admits other machines; use it
            only with TLS or on a trusted network. unix:PATH listens on a socket file.
        port: Port to listen on; 0 for any free port.
        provider: onnxruntime provider; auto is CUDA if there is a device, otherwise the CPU; a provider given by
            name never falls back to another provider.
        threads: Number of threads of a run on the CPU; default: the number of CPUs that this process may use.
        shared_memory: Let clients on this host pass frames in shared memory.
        poll_seconds: Seconds between scans for new versions; 0 for no regular scans.
        metrics_port: Port of the Prometheus metrics; 0 for any free port; default: no metrics.
        streams: How many streams may be open at the same time; a robot opens one stream for each camera.
        tls_cert: PEM file with the server's certificate.
        tls_key: PEM file with the key of the server's certificate.
        client_ca: PEM file of the authority that must have signed the clients' certificates.
        token: File with the token that clients must send.
        admin_token: File with the token for loading and unloading models; without it, only clients on this host may do
            so.
        drain_seconds: How long accepted requests may still run after SIGTERM.
        gpu: How the GPU runs the encoders, for the providers cuda and tensorrt.
        dry_run: Print the provider's options for each model and end; this needs no GPU.
        json: Print them as JSON.

    Raises:
        InputError: no model can be served, a number is out of range, or options exclude each other.
        ResourceError: a port is taken.
    """
    if dry_run:
        return describe_plan(models, provider, gpu, as_json=json)
    if json:
        raise InputError("--json is for --dry-run; add --dry-run, or leave it out (the log is JSON anyway)")
    with json_log(), _logged_failure():
        security = Security(tls_cert, tls_key, client_ca, token, admin_token)
        is_private = is_local(host)
        if not is_private and tls_cert is None and (token or admin_token):
            raise InputError(
                f"the token would cross the network of {host} unencrypted; pass --tls-cert and --tls-key too"
            )
        session = SessionSettings(
            provider=choose_provider(provider), threads=num_cpus() if threads is None else threads, gpu=gpu
        )
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
        check_range(0, DAY_S, drain_seconds=drain_seconds)
        _keep_freed_memory()
        _serve(models, settings, drain_seconds=drain_seconds)
    return None


@contextlib.contextmanager
def _logged_failure() -> Iterator[None]:
    """Log the error that ends the command; the command prints it as a plain line too."""
    try:
        yield
    except RobosslError as error:
        _log.error("failed", extra={"reason": str(error)})
        raise


def _serve(models: Path, settings: ServerSettings, *, drain_seconds: float) -> None:
    session = settings.session
    _say(f"loading the models of {models} on {session.provider}, {session.threads} threads")
    server = EncoderServer(models, settings)
    stop, look = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: look.set())
    server.start()
    for model in server.repository.models():
        _say(f"  {model.card.name} version {model.card.version}, {model.costs.of(1) * 1e3:.1f} ms a frame")
    open_to = "no TLS" if is_local(settings.host) else "no TLS: anyone on the network can use it"
    how = "TLS" if settings.security.tls_cert else open_to
    if server.metrics_pages:
        _say(f"metrics at {', '.join(server.metrics_pages)}")
    _say(f"serving on {server.address} ({how}); end with Ctrl-C")
    while not stop.wait(0.5):
        if look.is_set():
            look.clear()
            server.look()
    _say("draining")
    server.stop(grace_s=drain_seconds)


def _say(line: str) -> None:
    """Print a line; if the output is closed or its disk is full, stop printing and go on serving."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of frames for later frames, because mapping memory costs more than copying a frame."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 64 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)
        # Limit the number of arenas, because each arena keeps the memory of its largest picture.
        libc.mallopt(_M_ARENA_MAX, 4)
