"""`robossl serve` as a process: its numbers, where it listens, and what becomes of its output and its log."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from places import kits_environment
from robossl_client._proto import inference_pb2 as pb
from robossl_client.client import EncoderClient
from robossl_serving.listen import is_local, listen, resolve
from robossl_serving.model import SessionSettings
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Raw, build_tiny, infer_request, server_process, serving

from robossl.cli.main import main
from robossl.errors import InputError, ResourceError


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@contextmanager
def taken(address: str) -> Iterator[int]:
    """A port of an address that somebody else listens on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as other:
        yield other.getsockname()[1]


def ask(target: str) -> str:
    with grpc.insecure_channel(target) as channel:
        return str(Raw(channel)("ModelInfer", infer_request(), timeout=30).model_version)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--port", ["70000", "65536", "-1"]),
        ("--metrics-port", ["70000", "-1"]),
        ("--threads", ["0", "-2", "100000"]),
        ("--poll-seconds", ["-1", "nan", "inf"]),
        ("--drain-seconds", ["-0.5", "nan", "inf"]),
    ],
)
def test_numbers_of_serve_out_of_range_are_refused(
    tiny_models: Path, option: str, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for value in values:
        assert main(["serve", str(tiny_models), option, value]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1), "at once, in one line"
        assert re.match(rf"robossl: {option[2:].replace('-', '_')} must .*, got {value}", said.err)


@pytest.mark.parametrize("settings", [{"port": 65536}, {"metrics_port": -1}, {"retire_seconds": float("nan")}])
def test_numbers_of_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must lie in"):
        ServerSettings(**settings)
    with pytest.raises(InputError, match="must lie in"):
        SessionSettings(threads=0)


@pytest.mark.parametrize(
    "options",
    [
        ("--hz", "nan"),
        ("--hz", "inf"),
        ("--times", "-1"),
        ("--times", "nan"),
        ("--seconds", "inf"),
        ("--deadline-ms", "nan"),
        ("--batch-size", "0"),
        ("--frame-hw", "0", "224"),
        ("--frame-hw", "100000", "100000"),
        ("--batch-size", "100000", "--batch-clients", "1"),
        ("--robots", "-1"),
        ("--batch-clients", "-1"),
    ],
)
def test_numbers_of_bench_serve_out_of_range_are_refused(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench-serve", "127.0.0.1:1", *options]) == 2
    assert options[0] in (said := capsys.readouterr().err) and said.count("\n") == 1


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_localhost_is_all_of_its_addresses_or_none(tiny_models: Path, address: str) -> None:
    with taken(address) as port, pytest.raises(ResourceError, match=rf"cannot listen on \S+:{port}: it is taken"):
        EncoderServer(tiny_models, ServerSettings(host="localhost", port=port))


@needs_ipv6
def test_localhost_is_found_by_both_of_its_addresses(tiny_models: Path) -> None:
    with serving(tiny_models, ServerSettings(host="localhost", port=0, metrics_port=0)) as server:
        assert server.address == f"localhost:{server.port}"
        for target in ("127.0.0.1", "[::1]", "localhost"):
            assert ask(f"{target}:{server.port}") == "2"
        assert len(server.metrics_pages) == 2
        for page in server.metrics_pages:
            with urllib.request.urlopen(page, timeout=10) as answer:
                assert b"robossl_model_current" in answer.read()
    for host in ("::1", "[::1]"):
        with serving(tiny_models, ServerSettings(host=host, port=0)) as server:
            assert ask(f"[::1]:{server.port}") == "2"


def test_a_host_is_what_its_addresses_are() -> None:
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.3.2.1", "unix:x", "unix-abstract:x")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.0.2.7")))
    for host in ("", "no such host", "127.0.0.1.evil.invalid", "x" * 300):
        with pytest.raises(InputError, match="is neither an address nor a known name"):
            resolve(host)
    with pytest.raises(ResourceError, match="not this machine's"):
        listen("192.0.2.7", 0, lambda address: 1)


def test_a_unix_socket_is_what_is_printed(tmp_path: Path) -> None:
    build_tiny(tmp_path / "models", version=1)
    for host, path in ((f"unix:{tmp_path}/a", "a"), (f"unix://{tmp_path}/b", "b")):
        with subprocess.Popen(
            [sys.executable, "-m", "robossl", "serve", str(tmp_path / "models"), "--host", host, "--threads", "1"],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert f"serving on {host} (no TLS); end with Ctrl-C\n" in process.stdout
            assert {each.name for each in tmp_path.iterdir()} == {"models", path}
            assert ask(host) == "1"
            with pytest.raises(ResourceError, match=f"cannot listen on {host}: it is taken"):
                EncoderServer(tmp_path / "models", ServerSettings(host=host))
            assert ask(host) == "1", "it has not been pushed away"
            process.kill()
        with serving(tmp_path / "models", ServerSettings(host=host)):  # what a killed server leaves is no obstacle
            assert ask(host) == "1"
        (tmp_path / path).unlink(missing_ok=True)


def test_a_socket_in_no_folder_sends_the_reader_to_the_log(tmp_path: Path, tiny_models: Path) -> None:
    host = f"unix:{tmp_path}/nowhere/a"
    with pytest.raises(ResourceError, match=f"cannot listen on {host}: grpc's lines above say why"):
        EncoderServer(tiny_models, ServerSettings(host=host))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("output", ["reader gone", "reader gone at once", "closed", "full"])
def test_a_server_drains_whatever_its_output_is(tmp_path: Path, output: str) -> None:
    build_tiny(tmp_path, version=1, layers=8)
    port = _free_port()
    command = [sys.executable, "-m", "robossl", "serve", str(tmp_path), "--threads", "1", "--port", str(port)]
    with ExitStack() as stack:
        if output == "closed":
            command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        sink: Any = stack.enter_context(open("/dev/full", "w")) if output == "full" else subprocess.PIPE
        process = stack.enter_context(subprocess.Popen(command, stdout=sink, stderr=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        if output == "reader gone":
            assert process.stdout is not None
            assert any("serving on" in line for line in process.stdout)
        if process.stdout is not None:
            process.stdout.close()
        client = stack.enter_context(EncoderClient(f"127.0.0.1:{port}", connect_ms=60_000))
        message = client._pin.request(np.zeros((1, 160, 160, 3), np.uint8), camera="", frame_id="1", captured_s=0.0)
        calls = [client._infer.future(message, timeout=60) for _ in range(12)]
        # sent after them on one connection: once it is answered, they have been accepted
        Raw(client._channel)("ServerLive", pb.ServerLiveRequest())
        calls[0].result()
        process.send_signal(signal.SIGTERM)
        assert [call.result().model_version for call in calls] == ["1"] * 12
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert [json.loads(line)["level"] for line in process.stderr.read().splitlines()] == ["info"] * 5


def test_the_error_that_ends_the_server_is_a_line_of_the_log_too(tiny_models: Path) -> None:
    command = [sys.executable, "-m", "robossl", "serve", str(tiny_models / "nosuch")]
    done = subprocess.run(command, env=kits_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    *logged, plain = done.stderr.splitlines()
    (event,) = [json.loads(line) for line in logged]
    assert (event["event"], f"robossl: {event['reason']}") == ("failed", plain)


def test_the_log_says_what_the_server_is_doing(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1)
    port = _free_port()
    command = [sys.executable, "-m", "robossl", "serve", str(tmp_path), "--threads", "1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None

        def read_until(event: str) -> list[dict[str, Any]]:
            rows = []
            while not rows or rows[-1]["event"] != event:
                line = process.stderr.readline()
                assert line, rows
                rows.append(json.loads(line))
            return rows

        try:
            rows = read_until("serving")
            assert ask(f"127.0.0.1:{port}") == "1", "it answers as soon as it says so"
            assert [row["event"] for row in rows] == ["loaded", "listening", "serving"]
            assert (rows[1]["address"], rows[1]["tls"]) == (f"127.0.0.1:{port}", False)
            build_tiny(tmp_path, version=2)
            process.send_signal(signal.SIGHUP)
            scanned = read_until("scanned")[-1]
            assert (scanned["loaded"], scanned["failed"], scanned["current"]) == (["tiny/2"], [], {"tiny": 2})
            process.terminate()
            rows = read_until("stopped")
            assert [row["event"] for row in rows] == ["draining", "stopped"]
            assert (rows[0]["grace_seconds"], rows[0]["open_streams"], rows[0]["waiting_requests"]) == (10.0, 0, 0)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def test_all_lines_of_the_log_are_json(tmp_path: Path) -> None:
    models, pem, key = tmp_path / "models", tmp_path / "pem", tmp_path / "key"
    build_tiny(models, version=1)
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout"
    subprocess.run([*make.split(), str(key), "-out", str(pem)], check=True, capture_output=True)
    with server_process(models, "--tls-cert", str(pem), "--tls-key", str(key)) as (process, port):
        assert process.stderr is not None
        for raw in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01garbage garbage"):  # grpc's own line
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(raw)
                connection.recv(1)
        build_tiny(models, version=2, broken="unrunnable")  # onnxruntime's own line
        process.send_signal(signal.SIGHUP)
        rows = []
        while not rows or rows[-1]["event"] != "refused":
            line = process.stderr.readline()
            assert line, rows
            rows.append(json.loads(line))
        process.terminate()
        rows += map(json.loads, process.stderr.read().splitlines())
    native = [row["line"] for row in rows if row["event"] == "a library's line"]
    assert any("Handshake failed" in line for line in native)
    assert any("onnxruntime" in line and "Reshape" in line for line in native)
    assert not any("\x1b" in line for line in native), "without colours"


def test_what_other_libraries_say_is_an_event_each() -> None:
    program = """
import logging, os, sys, threading, warnings
from robossl_serving.logs import json_log
with json_log():
    os.write(2, b"\\x1b[1;31mfrom C\\x1b[m\\n\\nand on\\nbytes \\xff\\n")
    os.write(2, b"x" * 50_000 + b"\\n")
    logging.getLogger("grpc._server").error("two\\nlines")
    logging.getLogger("other").info("is no matter")
    warnings.warn("a warning")
    print("from Python", file=sys.stderr)
    thread = threading.Thread(target=lambda: 1 / 0, name="t")
    thread.start()
    thread.join()
    logging.getLogger("robossl.serving").info("our own", extra={"path": os.devnull})
print("after it", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    *lines, last = done.stderr.splitlines()
    assert last == "after it"
    rows = [json.loads(line) for line in lines]
    native = [row["line"] for row in rows if row["event"] == "a library's line"]
    assert native[:3] == ["from C", "and on", "bytes \ufffd"]
    assert "".join(native[3:-1]) == "x" * 50_000 and native[-1] == "from Python"
    others = {row.get("logger", ""): row for row in rows if row["event"] != "a library's line"}
    assert others["grpc._server"]["event"] == "two\nlines"
    assert "a warning" in others["py.warnings"]["event"]
    (failed,) = [row for row in rows if row["event"] == "a thread failed"]
    assert failed["in_thread"] == "t" and "ZeroDivisionError" in failed["error"]
    assert [row["path"] for row in rows if row["event"] == "our own"] == ["/dev/null"]


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_last_words_of_a_library_that_ends_the_process_are_kept(is_busy: bool) -> None:
    program = f"""
import ctypes, threading, time
from robossl_serving.logs import json_log
def spin():
    while True:
        pass
libc = ctypes.CDLL(None)
with json_log():
    if {is_busy}:
        threading.Thread(target=spin, daemon=True).start()
        time.sleep(0.1)
    for number in range(500):
        libc.write(2, b"line %03d\\n" % number, 9)
    libc.write(2, b"terminate called: the reason\\n", 29)
    libc.abort()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error" in done.stderr  # where it happened is written beside, perhaps in the middle of a line
    lines = [f"line {number:03d}" for number in range(500)]
    assert re.findall('"line": "(.*?)"', done.stderr) == [*lines, "terminate called: the reason"]


def test_a_librarys_record_that_cannot_be_written_out_harms_nobody() -> None:
    program = """
import logging
from robossl_serving.logs import json_log
with json_log():
    logging.getLogger("grpc").warning("%d frames", "many")
    logging.getLogger("robossl.serving").info("and on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = list(map(json.loads, done.stderr.splitlines()))
    assert any("TypeError: %d format" in row.get("line", "") for row in rows)
    assert "and on" in [row["event"] for row in rows]


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_a_log_that_cannot_be_written_does_not_end_the_server(tmp_path: Path, how: str) -> None:
    build_tiny(tmp_path, version=1)
    command = [sys.executable, "-m", "robossl", "serve", str(tmp_path), "--threads", "1", "--port", "0"]
    with subprocess.Popen(
        ["sh", "-c", f'exec "$@" {how}', "sh", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = next(int(found[1]) for line in process.stdout if (found := re.search(r"serving on .*:(\d+) ", line)))
        build_tiny(tmp_path, version=2, broken="unrunnable")
        process.send_signal(signal.SIGHUP)
        until_s = time.monotonic() + 60
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = Raw(channel)
            while not call("RepositoryIndex", pb.RepositoryIndexRequest()).models[-1].reason:
                assert time.monotonic() < until_s
                time.sleep(0.05)
            assert call("ModelInfer", infer_request(FRAMES)).model_version == "1"
        process.terminate()
        assert process.wait(timeout=60) == 0
