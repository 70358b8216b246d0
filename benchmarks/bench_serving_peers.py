"""Compare our server with mosec, LitServe, BentoML and Triton on ResNet-18 at 224 px, with 1 and 8 clients.

    python -m venv PEERS && PEERS/bin/pip install mosec litserve python-multipart bentoml onnxruntime numpy
    python -m venv TRITON && TRITON/bin/pip install --no-deps nvidia-pytriton==0.7.0
    TRITON/bin/pip install onnxruntime 'numpy<2'  # its backend of 2024 gives empty outputs on numpy 2
    python benchmarks/bench_serving_peers.py --peers-venv PEERS [--triton-venv TRITON] [--rounds 7] [--seconds 4]

All serve the same model.onnx with onnxruntime on one thread: frames of 150 KB as raw bytes in, 2 KB of features out.
Clients are threads of this process that ask again when they are answered, over a kept connection. Our server and Triton
get our client's batch requests, which are answered in order. Blocks alternate; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
from peers import triton
from robossl_client.card import EncoderCard
from robossl_client.client import EncoderClient
from serving_models import DIM, null_model, resnet18, some_frame
from serving_processes import robossl_server

PEERS = Path(__file__).parent / "peers"
START_SECONDS = 60.0
MODELS = {"resnet18": resnet18, "null": null_model}
Ask = Callable[[], object]
Timings = tuple[float, float, float]  # p50 ms, p99 ms, frames/s


def commands(venv: Path, port: int) -> dict[str, list[str]]:
    """Return the command that starts each peer."""
    python = str(venv / "bin" / "python")
    listen = ["--address", "127.0.0.1", "--port", str(port), "--timeout", "60000", "--log-level", "error"]
    bento = [str(venv / "bin" / "bentoml"), "serve", "bentoml_service:Serve", "--host", "127.0.0.1", "--port"]
    return {
        "mosec": [python, "mosec_server.py", *listen],
        "LitServe": [python, "litserve_server.py", str(port)],
        "BentoML": [*bento, str(port), "--working-dir", str(PEERS)],
    }


@contextmanager
def peer(name: str, venv: Path, model: Path) -> Iterator[int]:
    """Start a peer, wait until it answers, yield its port."""
    port = _free_port()
    environment = os.environ | {
        "ROBOSSL_MODEL": str(model),
        "OMP_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(PEERS),
    }
    process = subprocess.Popen(
        commands(venv, port)[name],
        cwd=PEERS,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                http_asker(name, port)()
                break
            except (OSError, RuntimeError):
                if time.monotonic() > until or process.poll() is not None:
                    raise SystemExit(f"{name} did not start: run {commands(venv, port)[name]} in {PEERS}") from None
                time.sleep(0.3)
        yield port
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


@contextmanager
def triton_server(venv: Path, model: Path) -> Iterator[int]:
    """Start Triton with the model in its Python backend; yield its gRPC port."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as scratch:
        server = triton.prepare(venv, Path(scratch), name=model.parent.name)
        process = subprocess.Popen(
            triton.command(server, Path(scratch), port=port),
            env=triton.environment(venv, model / "model.onnx"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield port
        finally:
            process.terminate()
            process.wait(timeout=40)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def http_asker(name: str, port: int) -> Ask:
    """Return a function that asks over its own HTTP connection."""
    raw = some_frame().tobytes()
    body, headers, path = raw, {"Content-Type": "application/octet-stream"}, "/inference"
    if name == "BentoML":
        path = "/raw/infer"
    if name == "LitServe":
        path = "/predict"
        headers = {"Content-Type": "multipart/form-data; boundary=frame"}
        part = b'--frame\r\nContent-Disposition: form-data; name="frame"; filename="f"\r\n\r\n'
        body = part + raw + b"\r\n--frame--\r\n"
    connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def ask() -> object:
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
        except ConnectionError:  # servers close connections that were idle for 5 s
            connection.close()
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
        features = response.read()
        if response.status != 200 or len(features) != 4 * DIM:
            raise RuntimeError(f"{name} answered {response.status} with {len(features)} bytes: {features[:200]!r}")
        return features

    return ask


def grpc_asker(stack: ExitStack, port: int, model: Path) -> Ask:
    """Return a function that asks our server or Triton, which has no card, with our client."""
    card = EncoderCard.from_json((model / "card.json").read_text(), origin="card.json")
    client = EncoderClient(
        f"127.0.0.1:{port}", model=card.name, card=card, deadline_ms=60_000, connect_ms=1e3 * START_SECONDS
    )
    stack.enter_context(client)
    frame = some_frame()
    return lambda: client.encode(frame)


def block(askers: list[Ask], seconds: float) -> Timings:
    """Return the timings of clients that ask at the same time."""

    def run(ask: Ask) -> list[float]:
        taken = []
        while (asked := time.perf_counter()) < until:
            ask()
            taken.append(time.perf_counter() - asked)
        return taken

    for ask in askers:
        ask()
    began = time.perf_counter()
    until = began + seconds
    with ThreadPoolExecutor(len(askers)) as pool:
        taken = np.concatenate(list(pool.map(run, askers)))
    p50, p99 = 1e3 * np.percentile(taken, (50, 99))
    return float(p50), float(p99), len(taken) / (time.perf_counter() - began)


def compare(
    model: Path,
    venv: Path,
    triton_venv: Path | None,
    *,
    names: list[str],
    rounds: int,
    seconds: float,
    clients: tuple[int, ...],
) -> None:
    """Run the blocks and print one line per server and number of clients."""
    rows: dict[tuple[int, str], list[Timings]] = defaultdict(list)
    most = max(clients)
    with ExitStack() as stack:
        port = stack.enter_context(robossl_server(model.parents[1]))
        askers = {"ours": [grpc_asker(stack, port, model) for _ in range(most)]}
        for name in names:
            port = stack.enter_context(peer(name, venv, model / "model.onnx"))
            askers[name] = [http_asker(name, port) for _ in range(most)]
        if triton_venv is not None:
            port = stack.enter_context(triton_server(triton_venv, model))
            askers["Triton"] = [grpc_asker(stack, port, model) for _ in range(most)]
            names = [*names, "Triton"]
        for each in askers.values():
            block(each, 0.5)
        order = list(askers)
        for _ in range(rounds):
            order = [*order[1:], order[0]]
            for number in clients:
                for name in order:
                    rows[number, name].append(block(askers[name][:number], seconds))
    for number in clients:
        print(_best_line(rows, number, names))
        for name in askers:
            figures = [statistics.median(column) for column in zip(*rows[number, name], strict=True)]
            print(f"  {name}: p50 {figures[0]:.2f} ms, p99 {figures[1]:.2f} ms, {figures[2]:.1f} frames/s")


def _best_line(rows: dict[tuple[int, str], list[Timings]], number: int, names: list[str]) -> str:
    """Compare ours with the peer of the best median; below 1 is better for times, above 1 for frames/s."""
    ratios = []
    for column, what, best in ((0, "p50", min), (1, "p99", min), (2, "frames/s", max)):
        medians = {name: statistics.median(each[column] for each in rows[number, name]) for name in names}
        peer_name = best(medians, key=medians.__getitem__)
        each = [a[column] / b[column] for a, b in zip(rows[number, "ours"], rows[number, peer_name], strict=True)]
        ratios.append(f"{what} {statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f}) x {peer_name}")
    return f"{number} clients, ours over the best peer: {', '.join(ratios)}"


def main() -> None:
    """Run the comparison for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-venv", type=Path, help="an environment with the peers; without it nothing runs")
    parser.add_argument("--triton-venv", type=Path, help="an environment with Triton's server")
    parser.add_argument("--peers", nargs="+", default=["mosec", "LitServe", "BentoML"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="per block")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["resnet18"])
    args = parser.parse_args()
    if args.peers_venv is None:
        print("skipped: no --peers-venv")
        return
    venv = args.peers_venv.absolute()
    with tempfile.TemporaryDirectory() as folder:
        makers = {name: MODELS[name] for name in args.models}
        for name, make in makers.items():
            model = make(Path(folder, name))
            print(f"{name}:", flush=True)
            compare(
                model,
                venv,
                args.triton_venv and args.triton_venv.absolute(),
                names=args.peers,
                rounds=args.rounds,
                seconds=args.seconds,
                clients=tuple(args.clients),
            )


if __name__ == "__main__":
    main()
