"""The wheel and the source archive hold what they should, and the wheel runs on its own."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from robossl import __version__

ROOT = Path(__file__).parents[1]
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
    assert not [file for file in files if file.stem.startswith("test_") or "tests" in file.parts]
    sources = [file for file in (ROOT / "robossl").rglob("*.py") if file.name != "__init__.py"]
    assert {file.relative_to(ROOT).as_posix() for file in sources} <= set(wheel.namelist())


def test_the_wheel_states_its_licence_and_its_command(wheel: zipfile.ZipFile) -> None:
    info = f"robossl-{__version__}.dist-info"
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    assert "License-Expression: Apache-2.0" in wheel.read(f"{info}/METADATA").decode()
    assert "robossl = robossl.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_the_wheel_runs_outside_the_repository(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); import robossl.cli as c; print(c.__file__); c.main()"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path), "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [str(tmp_path / "robossl" / "cli.py"), f"robossl {__version__}"]


def test_the_source_archive_has_what_it_needs_to_build(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "robossl/cli.py"} <= names
    assert not [name for name in names if name.endswith((".mp4", ".png", ".lock"))]
