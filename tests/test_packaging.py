"""The wheels and the source archive hold what they should, and the wheels run on their own."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from places import ROOT
from robossl_serving.server import ServerSettings
from serving_kit import serving

from robossl import __version__

PACKAGES = {"robossl", "robossl_envs", "robossl_serving", "robossl_client"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", out], cwd=ROOT, check=True, timeout=300)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    assert path.name == f"robossl-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_four_packages_and_no_tests(wheel: zipfile.ZipFile) -> None:
    files = [Path(name) for name in wheel.namelist()]
    assert {file.parts[0] for file in files} == PACKAGES | {f"robossl-{__version__}.dist-info"}
    assert {file.parts[0] for file in files if file.name == "py.typed"} == PACKAGES
    assert not [file for file in files if file.suffix in (".pyc", ".mp4", ".jpg", ".png")]
    assert not [file for file in files if re.fullmatch(r"tests?|test_.*|.*_test|conftest", file.stem)]
    kinds = (".py", ".html", ".css", ".toml", ".json")
    sources = [file for file in (ROOT / "robossl").rglob("*.*") if file.suffix in kinds and file.name != "__init__.py"]
    assert {file.relative_to(ROOT).as_posix() for file in sources} <= set(wheel.namelist())
    recipes = {f"robossl/configs/{file.name}" for file in (ROOT / "configs").glob("*.yaml")}
    assert recipes <= set(wheel.namelist())


def test_the_wheel_states_its_licence_and_its_command(wheel: zipfile.ZipFile) -> None:
    info = f"robossl-{__version__}.dist-info"
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    assert "License-Expression: Apache-2.0" in wheel.read(f"{info}/METADATA").decode()
    assert "robossl = robossl.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_the_wheel_runs_outside_the_repository(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import robossl.cli.main as c; print(c.__file__);"
        "c.main(); import robossl.training.recipes; print('quickstart' in robossl.training.recipes.recipes())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path), "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [str(tmp_path / "robossl" / "cli" / "main.py"), f"robossl {__version__}", "True"]


def test_the_source_archive_has_what_it_needs_to_build(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "robossl/cli/main.py"} <= names
    assert not [name for name in names if name.endswith((".mp4", ".png", ".lock"))]


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("client")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out]
    subprocess.run(command, cwd=ROOT / "serving", check=True, timeout=300)
    return zipfile.ZipFile(out / f"robossl_client-{__version__}-py3-none-any.whl")


def test_the_client_has_a_wheel_of_its_own(client_wheel: zipfile.ZipFile) -> None:
    info = f"robossl_client-{__version__}.dist-info"
    sources = {
        file.relative_to(ROOT / "serving").as_posix()
        for file in (ROOT / "serving" / "robossl_client").rglob("*")
        if file.is_file() and file.suffix in (".py", ".pyi", ".proto", ".typed")
    } | {"robossl_client/py.typed"}
    assert len(sources) > 10
    assert {name for name in client_wheel.namelist() if not name.startswith(info)} == sources
    metadata = client_wheel.read(f"{info}/METADATA").decode().splitlines()
    needs = sorted(line.split(":")[1].strip() for line in metadata if line.startswith("Requires-Dist"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [re.split(r"\W", each)[0] for each in needs] == ["grpcio", "numpy", "protobuf"]
    assert {each for each in needs if not each.startswith("numpy")} <= set(project["dependencies"])
    assert "Requires-Python: >=3.10" in metadata
    assert "Apache License" in client_wheel.read(f"{info}/licenses/LICENSE").decode()


def test_the_client_wheel_is_all_that_a_robot_needs(
    client_wheel: zipfile.ZipFile, tiny_models: Path, tmp_path: Path
) -> None:
    client_wheel.extractall(tmp_path)
    program = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); check = sys.argv[1]; del sys.argv[0]; "
        "runpy.run_path(check, run_name='__main__'); import robossl_client; print(robossl_client.__file__)"
    )
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        arguments = [str(tmp_path), str(ROOT / "tests" / "kits" / "client_check.py"), f"127.0.0.1:{server.port}"]
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
        )
    assert done.stdout.splitlines()[-1:] == [str(tmp_path / "robossl_client" / "__init__.py")], done.stderr
