"""The command line as a person meets it: real processes, their exit codes and what they print."""

from __future__ import annotations

import functools
import os
import pkgutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robossl import __version__
from robossl.cli.main import COMMANDS, main, usage

TOY = '''
import os, sys, time
from pathlib import Path
from typing import Literal
from robossl.cli import main as cli
from robossl.errors import InputError, ResourceError

def copy(sources: list[Path], *, out: Path, format: Literal["auto", "mp4"] = "auto", strict: bool = False):
    """Copy sources.

    Args:
        out: where they go

    Raises:
        InputError: never
    """
    return f"{[str(each) for each in sources]} {out} {format} {strict}"

def fail(kind: str) -> None:
    """Fail as told."""
    raise {"input": InputError, "resource": ResourceError, "bug": KeyError}[kind]("what, and what to do")

def command(argv: list[str]) -> int:
    print(argv)
    return 12

def wait() -> None:
    """Wait to be interrupted."""
    print("waiting", flush=True)
    time.sleep(60)

def flood() -> None:
    """Print without end."""
    while True:
        print("x" * 1000)

def threads() -> None:
    """How long threads spin, as OpenMP reads it when torch is loaded."""
    assert "torch" not in sys.modules
    import torch
    print(os.environ.get("GOMP_SPINCOUNT"))

cli.COMMANDS = {name: (f"toy:{name}", "about") for name in ("copy", "fail", "command", "wait", "flood", "threads")}
sys.modules["toy"] = sys.modules["__main__"]
sys.exit(cli.main())
'''


def robossl(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "robossl", *argv], capture_output=True, text=True, timeout=120)


@pytest.fixture
def toy(tmp_path: Path) -> list[str]:
    (tmp_path / "toy.py").write_text(TOY)
    return [sys.executable, str(tmp_path / "toy.py")]


def run(toy: list[str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*toy, *argv], capture_output=True, text=True, timeout=120)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "robossl", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "robossl" in imported
    assert not imported & {"torch", "tyro", "numpy", "yaml", "rich", "pyarrow"}


@pytest.mark.parametrize(
    ("words", "code", "absent"),
    [
        ("pretrain --help", 0, {"torch", "timm", "yaml"}),
        ("pretrain simsiam_resnet18_vdieo", 2, {"torch", "timm", "yaml"}),
        ("pretrain dino_vit_tiny_droid --train.stps 3", 2, {"timm", "sklearn"}),
        ("pretrain byol_resnet18_droid --help", 0, {"timm", "sklearn"}),
    ],
)
def test_what_was_typed_is_checked_before_slow_imports(words: str, code: int, absent: set[str]) -> None:
    program = (
        "import sys\nfrom robossl.cli.main import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as ended:\n    code = ended.code\n"
        "print('imported', *sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words.split()], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert "robossl.training.command" in done.stderr
    assert not absent & set(done.stderr.partition("imported ")[2].split())


@pytest.mark.parametrize("argv", [["--data.store", "stores/mine"], ["--out", "a", "--data.store", "b/", "quickstart"]])
def test_an_option_s_value_is_no_recipe(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", *argv]) == 2
    assert "name a recipe first, such as simsiam_resnet18_video" in capsys.readouterr().err


def test_version_and_misuse() -> None:
    assert robossl("--version").stdout == f"robossl {__version__}\n"
    assert robossl().returncode == 2
    wrong = robossl("pretrian")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    said = "robossl: unknown command 'pretrian'; did you mean 'pretrain'? choose from inspect, ingest,"
    assert wrong.stderr.startswith(said)
    assert wrong.stderr.count("\n") == 1


def test_the_installed_script_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("robossl")
    assert subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120).stdout == usage() + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    target, about = COMMANDS[name]
    assert callable(pkgutil.resolve_name(target))
    assert about[0].islower()
    try:
        code = main([name, "--help"])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 0
    assert f"robossl {name}" in capsys.readouterr().out


def test_parameters_become_positionals_and_options(toy: list[str]) -> None:
    done = run(toy, "copy", "a", "b", "--out", "c", "--strict")
    assert (done.returncode, done.stdout) == (0, "['a', 'b'] c auto True\n")
    helped = run(toy, "copy", "--help").stdout
    assert "Copy sources." in helped
    assert "where they go" in helped
    assert "Raises" not in helped
    assert (run(toy, "command", "x", "--y").stdout, run(toy, "command").returncode) == ("['x', '--y']\n", 12)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "--out", "c", "--fromat", "mp4"], "--format"),
        (["a", "--out", "c", "--format", "mp5"], "mp4"),
        (["a"], "--out"),
    ],
)
def test_wrong_options_exit_2_and_name_the_right_ones(toy: list[str], argv: list[str], message: str) -> None:
    done = run(toy, "copy", *argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("kind", "code"), [("input", 2), ("resource", 1)])
def test_expected_errors_are_one_line(toy: list[str], kind: str, code: int) -> None:
    done = run(toy, "fail", kind)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "robossl: what, and what to do\n")


def test_unexpected_errors_keep_their_traceback(toy: list[str]) -> None:
    done = run(toy, "fail", "bug")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


def test_waiting_threads_sleep_soon_unless_told_otherwise(toy: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert run(toy, "threads").stdout == "10000\n"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert run(toy, "threads").stdout == "None\n"


def test_an_interrupt_exits_130(toy: list[str]) -> None:
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    with subprocess.Popen(
        [*toy, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "robossl: interrupted\n"


def test_a_closed_pipe_is_quiet(toy: list[str]) -> None:
    with subprocess.Popen([*toy, "flood"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == ""
