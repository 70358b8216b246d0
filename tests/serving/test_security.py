"""TLS, client certificates and tokens: who may ask, who may administer, and what is said to those who may not."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest
from robossl_client._proto import inference_pb2 as pb
from robossl_client.aio import AsyncEncoderClient
from robossl_client.channel import Tls
from robossl_client.client import EncoderClient
from robossl_client.errors import DeadlineError, DeniedError, RequestError, UnavailableError
from robossl_serving.peers import is_loopback
from robossl_serving.security import Security
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, calling, infer_request, own_address, serving, status_of

from robossl.cli.main import main
from robossl.encoders.gpus import find_gpus
from robossl.errors import InputError
from robossl.measure.subjects import open_subject


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, and certificates for localhost of the first; one of them has expired."""
    out = tmp_path_factory.mktemp("certs")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    (out / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("ca", "other"):
        files = ("-keyout", out / f"{name}.key", "-out", out / f"{name}.pem")
        _openssl("req", "-x509", *curve, "-days", "2", "-subj", f"/CN={name}", *files)
    for name in ("server", "client", "expired"):
        _openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", out / f"{name}.key", "-out", out / f"{name}.csr")
        days = (
            ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z") if name == "expired" else ("-days", "2")
        )
        authority = ("-CA", out / "ca.pem", "-CAkey", out / "ca.key", "-CAcreateserial")
        asked = ("-in", out / f"{name}.csr", "-extfile", out / "names", "-out", out / f"{name}.pem")
        try:
            _openssl("x509", "-req", *asked, *authority, *days)
        except subprocess.CalledProcessError:  # before openssl 3.4 no dates can be given: an hour of no life at all
            _openssl("x509", "-req", *asked, *authority, "-days", "0")
            time.sleep(1.1)
    return out


def _tls(certs: Path, *, ca: str = "ca", own: str | None = None) -> Tls:
    pem, key = (None, None) if own is None else ((certs / f"{own}{end}").read_bytes() for end in (".pem", ".key"))
    return Tls(ca=(certs / f"{ca}.pem").read_bytes(), cert=pem, key=key)


def _settings(certs: Path | None = None, *, cert: str = "server", **security: Any) -> ServerSettings:
    if certs is not None:
        security |= {"tls_cert": certs / f"{cert}.pem", "tls_key": certs / f"{cert}.key"}
    return ServerSettings(port=0, security=Security(**security))


def _ask(server: EncoderServer, **options: Any) -> None:
    with EncoderClient(f"localhost:{server.port}", connect_ms=700, **options) as client:
        assert client.encode(FRAMES).features


def _denied(server: EncoderServer, words: str, *, error: type[Exception] = DeniedError, **options: Any) -> None:
    """Both clients are denied at once, in one line."""
    target = f"localhost:{server.port}"

    async def connect() -> None:
        await AsyncEncoderClient.connect(target, connect_ms=60_000, **options)

    for ask in (lambda: EncoderClient(target, connect_ms=60_000, **options), lambda: asyncio.run(connect())):
        began_s = time.monotonic()
        with pytest.raises(error, match=words) as caught:
            ask()
        assert time.monotonic() - began_s < 20, "a third of the wait"
        assert "\n" not in str(caught.value)


def test_tls(tiny_models: Path, certs: Path) -> None:
    with serving(tiny_models, _settings(certs)) as server:
        _ask(server, tls=_tls(certs))
        for wrong in (_tls(certs, ca="other"), Tls()):
            _denied(
                server, r"certificate is not trusted \(unable to get local issuer certificate\); pass .*ca=", tls=wrong
            )
        _denied(server, r"speaks TLS only; pass the authority of .* \(--ca FILE, in Python tls=Tls\(ca=", tls=None)
        named = dataclasses.replace(_tls(certs), server_name="elsewhere")
        _denied(server, "the server's certificate is not for elsewhere; connect by a name in it", tls=named)


def test_a_server_without_tls_is_told_apart(tiny_models: Path, certs: Path) -> None:
    with serving(tiny_models) as server:
        _denied(server, "the server speaks no TLS; leave out --ca", tls=_tls(certs))


@pytest.mark.parametrize("with_tls", [False, True])
@pytest.mark.parametrize("behaviour", ["refuses", "hangs up", "is silent"])
def test_a_server_that_is_away_is_not_taken_for_one_that_denies(certs: Path, with_tls: bool, behaviour: str) -> None:
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])
                    if behaviour == "hangs up":
                        held.pop().close()

        threading.Thread(target=accept, daemon=True).start()
        if behaviour == "refuses":
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            port = 1
        else:
            port = listener.getsockname()[1]
        tls = _tls(certs) if with_tls else None
        with pytest.raises((UnavailableError, DeadlineError)):
            EncoderClient(f"127.0.0.1:{port}", tls=tls, connect_ms=700)
        if behaviour != "refuses":
            listener.shutdown(socket.SHUT_RDWR)
    for each in held:
        each.close()


def test_a_stream_hears_that_the_server_came_back_with_another_certificate(tiny_models: Path, certs: Path) -> None:
    with serving(tiny_models, _settings(certs)) as server:
        port = server.port
        client = EncoderClient(f"localhost:{port}", robot="arm", tls=_tls(certs))
        stream = client.latest()
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=20_000) is not None
    settings = dataclasses.replace(_settings(certs, cert="other"), port=port)
    with serving(tiny_models, settings), client:
        until_s = time.monotonic() + 60
        with pytest.raises(DeniedError, match="certificate is not trusted"):
            while time.monotonic() < until_s:
                stream.send(FRAMES[:1])
                stream.take(wait_ms=100)


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("server.key", "server.pem", "--tls-cert .*server.key holds no certificate .*it holds a PRIVATE KEY"),
        ("server.pem", "other.key", "--tls-key .*other.key is not the key of .*server.pem; pass the two"),
        ("server.pem", "server.pem", "--tls-key .*server.pem holds no private key .*it holds a CERTIFICATE"),
        ("cut.pem", "server.key", "--tls-cert .*cut.pem holds no certificate .*its CERTIFICATE is damaged"),
        ("server.pem", "cut.key", "--tls-key .*cut.key holds no private key .*its PRIVATE KEY is damaged"),
        ("empty", "server.key", "--tls-cert .*empty holds no certificate .*it is empty"),
        ("names", "server.key", "--tls-cert .*names holds no certificate .*it is no PEM file"),
        ("server.pem", "locked.key", "--tls-key .*locked.key is encrypted"),
    ],
)
def test_a_certificate_or_key_that_cannot_be_used_is_named(
    tiny_models: Path, certs: Path, cert: str, key: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (certs / "empty").touch()
    for name in ("server.pem", "server.key"):
        (certs / name.replace("server", "cut")).write_bytes((certs / name).read_bytes()[:120])
    _openssl("ec", "-in", certs / "server.key", "-aes256", "-passout", "pass:secret", "-out", certs / "locked.key")
    files = ("--tls-cert", str(certs / cert), "--tls-key", str(certs / key))
    assert main(["serve", str(tiny_models), "--port", "0", *files]) == 2
    event, said = capfd.readouterr().err.splitlines()
    assert re.match(f"robossl: {words}", said) and "--port" not in said
    assert f"robossl: {json.loads(event)['reason']}" == said


def test_an_authority_that_cannot_be_used_is_named(
    tiny_models: Path, certs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = certs / "server.key"
    with pytest.raises(InputError, match=r"--client-ca .*server.key holds no certificate"):
        EncoderServer(tiny_models, _settings(certs, client_ca=key))
    with serving(tiny_models, _settings(certs)) as server:
        target = f"localhost:{server.port}"
        for command in (["load", target, "tiny"], ["bench-serve", target]):
            assert main([*command, "--ca", str(key)]) == 2
            said = capfd.readouterr().err
            assert said.startswith(f"robossl: --ca {key} holds no certificate") and said.count("\n") == 1
            assert main(command) == 1
            assert "pass the authority of its certificate (--ca FILE, " in capfd.readouterr().err


def test_files_that_are_pipes_are_read_once(tiny_models: Path, certs: Path) -> None:
    pipes = {}
    for name in ("pem", "key"):
        pipes[name], sink = os.pipe()
        os.write(sink, (certs / f"server.{name}").read_bytes())
        os.close(sink)
    files = {"tls_cert": Path(f"/dev/fd/{pipes['pem']}"), "tls_key": Path(f"/dev/fd/{pipes['key']}")}
    with serving(tiny_models, _settings(**files)) as server:
        _ask(server, tls=_tls(certs))


def test_tls_texts_that_cannot_be_used_are_said(tiny_models: Path, certs: Path) -> None:
    pem, key, other = ((certs / name).read_bytes() for name in ("client.pem", "client.key", "other.key"))
    with serving(tiny_models, _settings(certs)) as server:
        for tls, words in (
            (Tls(ca="server.pem"), r"Tls\(ca=\) must be the PEM text as bytes, got str; read the file"),
            (Tls(cert=pem), "cert= and key= together"),
            (Tls(key=key), "cert= and key= together"),
            (Tls(ca=b"no PEM"), "ca, cert and key must be PEM texts"),
            (Tls(ca=b""), r"Tls\(ca=\) must be the PEM text as bytes, got nothing"),
            ({"ca": pem}, r"tls must be Tls\(ca=\.\.\., cert=\.\.\., key=\.\.\.\) or None, got dict"),
            (Tls(cert=pem, key=b"no PEM"), "ca, cert and key must be PEM texts"),
            (Tls(cert=pem, key=other), "and the key that of the cert"),
        ):
            _denied(server, words, error=RequestError, tls=tls)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with source, contextlib.suppress(OSError):
        for number in itertools.count():
            data = source.recv(2**16)
            time.sleep(0.6 if number < 4 else 0.0)  # as long as they are connecting
            sink.sendall(data)
            if not data:
                sink.shutdown(socket.SHUT_RDWR)
                return


@contextlib.contextmanager
def slow_link(port: int) -> Iterator[int]:
    """A port that leads to another one, and takes its time to connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(("127.0.0.1", port))
                    for ends in ((near, far), (far, near)):
                        threading.Thread(target=_pass_on, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_tls_over_a_slow_link(tiny_models: Path, certs: Path) -> None:
    with (
        serving(tiny_models, _settings(certs)) as server,
        slow_link(server.port) as port,
        EncoderClient(f"localhost:{port}", tls=_tls(certs), connect_ms=30_000) as client,
    ):
        assert client.encode(FRAMES).features


def test_a_guarded_server_can_be_probed(tiny_models: Path, certs: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "wrong").write_text("other\n")
    with serving(tiny_models, _settings(certs, token=tmp_path / "token")) as server:
        source, ca = f"grpc://localhost:{server.port}/tiny", certs / "ca.pem"
        probed = open_subject(source, token=tmp_path / "token", ca=ca)
        assert probed(FRAMES)["pooled"].shape == (len(FRAMES), probed.info.dim)
        with pytest.raises(InputError, match="token"):
            open_subject(source, token=tmp_path / "wrong", ca=ca)
        with pytest.raises(InputError, match=r"cannot read .*none.pem \(No such file"):
            open_subject(source, ca=tmp_path / "none.pem")
    with pytest.raises(InputError, match="--token and --ca are for a server"):
        open_subject(str(tiny_models / "tiny"), ca=ca)


def test_an_expired_certificate_is_not_believed(tiny_models: Path, certs: Path) -> None:
    with serving(tiny_models, _settings(certs, cert="expired")) as server:
        _denied(server, r"not trusted \(certificate has expired\)", tls=_tls(certs))


def test_mutual_tls(tiny_models: Path, certs: Path) -> None:
    with serving(tiny_models, _settings(certs, client_ca=certs / "ca.pem")) as server:
        _ask(server, tls=_tls(certs, own="client"))
        _denied(
            server,
            r"asks for a client certificate; pass --cert and --key, in Python Tls\(cert=\.\.\., key=\.\.\.\)",
            tls=_tls(certs),
        )
        for own in ("other", "expired"):
            _denied(server, "does not accept the client certificate", tls=_tls(certs, own=own))
        _denied(server, "the server speaks TLS only", tls=None)


def test_commands_show_a_client_certificate(
    tiny_models: Path, certs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ca, cert, key = (str(certs / name) for name in ("ca.pem", "client.pem", "client.key"))
    with serving(tiny_models, _settings(certs, client_ca=certs / "ca.pem")) as server:
        target = f"localhost:{server.port}"
        own = ("--ca", ca, "--cert", cert, "--key", key)
        assert main(["load", target, "tiny", *own]) == 0
        assert main(["bench-serve", target, *own, "--seconds", "0.3", "--out", str(tmp_path)]) == 0
        capfd.readouterr()
        for command in (["load", target, "tiny"], ["bench-serve", target]):
            assert main([*command, "--ca", ca]) == 1
            assert "asks for a client certificate; pass --cert and --key," in capfd.readouterr().err
            assert main([*command, "--cert", cert, "--key", key]) == 2
            assert "needs --ca, --cert and --key; pass all three" in capfd.readouterr().err
            assert main([*command, "--ca", ca, "--cert", cert, "--key", str(certs / "server.key")]) == 2
            assert f"--key {certs / 'server.key'} is not the key of {cert}" in capfd.readouterr().err


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, Path]:
    for name in ("token", "admin_token"):
        (tmp_path / name).write_text(f"the {name}\n")
    return {"token": tmp_path / "token", "admin_token": tmp_path / "admin_token"}


def _bearer(token: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),)}


def test_tokens(tiny_models: Path, tokens: dict[str, Path]) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="tiny")
    with serving(tiny_models, _settings(**tokens)) as server, calling(server) as call:
        _ask(server, token="the token")
        for wrong in (None, "", "the tokem", "the token 2"):
            with pytest.raises(DeniedError):
                _ask(server, token=wrong)
        assert status_of(lambda: call("ModelInfer", infer_request()))[0] == "UNAUTHENTICATED"
        assert status_of(lambda: call("RepositoryModelLoad", load))[0] == "UNAUTHENTICATED"
        assert status_of(lambda: call("RepositoryModelLoad", load, **_bearer("the token")))[0] == "PERMISSION_DENIED"
        call("RepositoryModelLoad", load, **_bearer("the admin_token"))
        call("ModelInfer", infer_request(), **_bearer("the admin_token"))
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("sent", ["bearer the token", "BEARER the token", "bEaReR   the token"])
def test_the_scheme_of_a_token_has_no_case(tiny_models: Path, tokens: dict[str, Path], sent: str) -> None:
    with serving(tiny_models, _settings(**tokens)) as server, calling(server) as call:
        call("ModelInfer", infer_request(), metadata=(("authorization", sent),))
        for wrong in (sent.upper(), f"{sent}s", sent.replace(" ", ""), f"basic {sent}", ""):
            asked = partial(call, "ModelInfer", infer_request(), metadata=(("authorization", wrong),))
            assert status_of(asked)[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "content", [b"one\ntwo\n", b"one\r\ntwo", b"a\tb", b"a\x00b", "t\u00f6ken".encode(), b"\xff", b" \n"]
)
def test_a_file_that_holds_no_token_is_refused_on_both_sides(
    tiny_models: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    for command in (["serve", str(tiny_models), "--port", "0"], ["bench-serve", "127.0.0.1:1"]):
        assert main([*command, "--token", str(file)]) == 2
        said = capsys.readouterr().err
        assert (str(file) in said, said.count("\n")) == (True, 1)
        assert "openssl rand -hex 32" in said
    with pytest.raises(InputError):
        EncoderServer(tiny_models, ServerSettings(port=0, security=Security(admin_token=file)))


@pytest.mark.parametrize(
    "token",
    [
        "s3cret\n",
        "s3cret\r\n",
        " s3cret",
        "s3\ncret",
        "s3\tcret",
        "s3\0cret",
        "s\u00e9cret",
        "s3cret\x7f",
        b"s3cret",
        7,
    ],
)
def test_a_token_that_a_header_cannot_carry_is_refused(token: Any) -> None:
    async def connect() -> None:
        await AsyncEncoderClient.connect(token=token)

    for ask in (lambda: EncoderClient(token=token), lambda: asyncio.run(connect())):
        with pytest.raises(RequestError, match=r"one line of printable ASCII .* use \.strip\(\)") as caught:
            ask()
        assert "cret" not in str(caught.value), "it stays secret"


def test_those_who_are_turned_away_are_counted(tiny_models: Path, tokens: dict[str, Path]) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="tiny")

    def refused(server: EncoderServer) -> dict[str, float]:
        text = generate_latest(server._metrics.registry).decode()
        return {code: float(count) for code, count in re.findall(r'robossl_refused_total{status="(\w+)"} (.*)', text)}

    with serving(tiny_models, _settings(**tokens)) as server, calling(server) as call:
        for _ in range(2):
            assert status_of(lambda: call("ModelInfer", infer_request()))[0] == "UNAUTHENTICATED"
        assert status_of(lambda: call("RepositoryModelLoad", load, **_bearer("the token")))[0] == "PERMISSION_DENIED"
        assert refused(server) == {"UNAUTHENTICATED": 2, "PERMISSION_DENIED": 1}
    with serving(tiny_models, ServerSettings(host="0.0.0.0", port=0)) as server:
        with calling(server, host=own_address()) as call:
            assert status_of(lambda: call("RepositoryModelLoad", load))[0] == "PERMISSION_DENIED"
        assert refused(server) == {"PERMISSION_DENIED": 1}


def test_those_who_are_turned_away_leave_lines(
    tiny_models: Path, tokens: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="tiny")

    def lines() -> list[tuple[Any, ...]]:
        rows = [vars(each) for each in caplog.records if each.message == "refused a caller"]
        assert all(row["peer"].startswith("ipv4:127.0.0.1:") for row in rows)
        return [(row["status"], row["call"], row["token"], row["times"]) for row in rows]

    with serving(tiny_models, _settings(**tokens)) as server, calling(server) as call:
        assert status_of(lambda: call("ModelInfer", infer_request(), **_bearer("s3cret")))[0] == "UNAUTHENTICATED"
        assert status_of(lambda: call("RepositoryModelLoad", load, **_bearer("the token")))[0] == "PERMISSION_DENIED"
        wanted = [
            ("UNAUTHENTICATED", "ModelInfer", "wrong", 1),
            ("PERMISSION_DENIED", "RepositoryModelLoad", "not the admin's", 1),
        ]
        assert lines() == wanted
        for _ in range(20):
            status_of(lambda: call("ServerLive", pb.ServerLiveRequest()))
        assert lines() == wanted, "not twenty lines"
    assert lines() == [*wanted, ("UNAUTHENTICATED", "ServerLive", "missing", 20)], "the rest when the server stops"
    assert not any("s3cret" in str(vars(each)) for each in caplog.records)


def test_an_admin_token_alone_leaves_asking_open(tiny_models: Path, tokens: dict[str, Path]) -> None:
    with serving(tiny_models, _settings(admin_token=tokens["admin_token"])) as server, calling(server) as call:
        _ask(server)
        load = pb.RepositoryModelLoadRequest(model_name="tiny")
        assert status_of(lambda: call("RepositoryModelLoad", load))[0] == "PERMISSION_DENIED"


def test_without_an_admin_token_administration_is_for_this_host(tiny_models: Path) -> None:
    with serving(tiny_models) as server, calling(server) as call:
        call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="tiny"))
    assert not any(map(is_loopback, ("ipv4:10.0.0.1:5", "ipv4:1.127.0.0:5", "ipv6:%5Bfe80::1%5D:5", "")))


def test_settings_that_do_not_fit_are_refused(
    tiny_models: Path, tmp_path: Path, tokens: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    for security, words in (
        (Security(tls_cert=tmp_path / "x"), "TLS needs both"),
        (Security(client_ca=tmp_path / "x"), "TLS needs both"),
        (Security(tls_cert=tmp_path / "x", tls_key=tmp_path / "x"), "cannot read"),
        (Security(token=tmp_path / "empty"), "is empty"),
    ):
        with pytest.raises(InputError, match=words):
            EncoderServer(tiny_models, ServerSettings(port=0, security=security))
    assert main(["serve", str(tiny_models), "--host", "0.0.0.0", "--token", str(tokens["token"])]) == 2
    assert "unencrypted" in capsys.readouterr().err
    if find_gpus():
        return
    assert main(["serve", str(tiny_models), "--provider", "cuda", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "--provider cuda needs a CUDA device" in said.err and said.err.count("\n") == 1


def test_metrics_are_served(tiny_models: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ServerSettings(port=0, metrics_port=port)
    with serving(tiny_models, settings) as server, EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client:
        client.encode(FRAMES)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
    labels = 'kind="control",model="tiny"'
    assert f'robossl_requests_total{{{labels},outcome="served",version="2"}} 1.0' in text
    for name in ("queue", "infer", "frame_age", "request"):
        assert f'robossl_{name}_seconds_count{{{labels},version="2"}} 1.0' in text
    assert 'robossl_runs_total{frames="3",model="tiny",version="2"} 1.0' in text
    assert 'robossl_model_loaded{model="tiny",version="2"} 1.0' in text
