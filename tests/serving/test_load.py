"""`robossl load`: roll a running server back and forth, and what is said where that cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest
from robossl_client.client import EncoderClient
from robossl_serving.security import Security
from robossl_serving.server import ServerSettings
from serving_kit import FRAMES, build_tiny, serving

from robossl.cli.main import main


def test_a_server_is_rolled_back_and_forth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in (1, 2):
        build_tiny(tmp_path, version=version)
    with serving(tmp_path) as server, EncoderClient(f"127.0.0.1:{server.port}", follow=True) as client:
        target = f"127.0.0.1:{server.port}"
        assert client.encode(FRAMES).version == 2
        assert main(["load", target, "tiny", "--version", "1"]) == 0
        said = capsys.readouterr().out
        assert f"tiny version 1 is current at {target}; loaded versions: 1, 2" in said
        assert "specific { versions: [ 1 ] }" in said
        assert client.encode(FRAMES).version == 1
        assert main(["load", target, "tiny"]) == 0
        assert f"tiny version 2 is current at {target}" in capsys.readouterr().out
        assert client.encode(FRAMES).version == 2
        assert main(["load", target, "tiny", "--version", "7"]) == 2
        assert "version 7 of tiny is not in the repository; it holds 1, 2" in capsys.readouterr().err
        assert main(["load", target, "tinny"]) == 2
        assert "there is no model 'tinny'" in capsys.readouterr().err
        (tmp_path / "tiny" / "3").mkdir()
        (tmp_path / "tiny" / "3" / "model.onnx").write_bytes(b"damaged")
        assert main(["load", target, "tiny", "--version", "3"]) == 1
        assert "failed its checks and is not served; version 2 is served" in capsys.readouterr().err


def test_loading_takes_the_admin_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_tiny(tmp_path / "models", version=1)
    for name in ("token", "admin"):
        (tmp_path / name).write_text(f"the {name}\n")
    security = Security(token=tmp_path / "token", admin_token=tmp_path / "admin")
    with serving(tmp_path / "models", ServerSettings(port=0, security=security)) as server:
        command = ["load", f"127.0.0.1:{server.port}", "tiny"]
        assert main([*command, "--token", str(tmp_path / "admin")]) == 0
        assert main(command) == 1
        assert "the token is missing or wrong" in capsys.readouterr().err
        assert main([*command, "--token", str(tmp_path / "token")]) == 1
        assert "needs the admin token" in capsys.readouterr().err


def test_a_server_that_is_away_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "127.0.0.1:1", "tiny"]) == 1
    said = capsys.readouterr().err
    assert "127.0.0.1:1: no server is reached" in said and "start `robossl serve` there" in said
    assert main(["load", "127.0.0.1:0", "tiny"]) == 2
    assert "host:port with a port of 1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["localhost", "127.0.0.1", "[::1]"])
def test_a_target_without_port_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["load", target, "tiny"], ["bench-serve", target]):
        assert main(command) in (1, 2)
        said = capsys.readouterr().err
        assert f"got {target!r} without a port; a server without --port has {target}:8001" in said and "443" not in said
