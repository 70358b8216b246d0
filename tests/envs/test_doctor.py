"""Doctor: a sentence and a line to type for each thing that is missing, and a frame drawn where nothing is."""

from __future__ import annotations

from pathlib import Path

import dots  # noqa: F401
import pytest
from robossl_envs.doctor import FAMILIES, EnvFamily, command, examine, family_of, find_missing, try_rendering

from robossl.errors import InputError


def test_what_is_not_installed_comes_with_its_pip_line() -> None:
    family = EnvFamily("x", "x/", {"no_such_module": "no-such[extra]", "numpy": "numpy"})
    assert find_missing(family) == ["no_such_module is not installed: pip install 'no-such[extra]'"]


def test_a_wrong_pin_is_said_and_a_right_one_is_not() -> None:
    (said,) = find_missing(EnvFamily("x", "x/", {}, pins={"numpy": "0.1"}))
    assert said.startswith("it is made for numpy 0.1, found ") and "pip install 'numpy==0.1.*'" in said
    assert find_missing(EnvFamily("x", "x/", {}, pins={"numpy": "2"})) == []


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("robossl/Push-v0", "robossl"),
        ("CartPole-v1", "classic_control"),
        ("Pusher-v5", "mujoco"),
        ("gym_pusht/PushT-v0", "pusht"),
        ("Meta-World/MT1", "metaworld"),
        ("metaworld/push-v3", "metaworld_drawn_fast"),
        ("dots/Dot-v0", None),
    ],
)
def test_ids_belong_to_families_registered_or_not(env: str, name: str | None) -> None:
    assert family_of(env) is (FAMILIES[name] if name else None)


def test_an_id_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match=r"no environment 'CartPloe-v1' is registered or known; .*CartPole-v1"):
        family_of("CartPloe-v1")


def test_a_missing_library_is_recognised_by_what_it_says() -> None:
    assert "opencv-python-headless" in try_rendering("dots/NoGL-v0", "dots")


def test_a_module_that_fails_as_it_is_imported_gets_its_remedy_or_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_egl.py").write_text("None.eglQueryString")
    assert command(["x/Y-v0", "--module", "no_egl"]) == 1
    assert capsys.readouterr().out.startswith("x/Y-v0: MuJoCo finds no OpenGL: apt-get install")
    (tmp_path / "odd.py").write_text("1 / 0")
    with pytest.raises(
        InputError, match=r"--module odd cannot be imported \(ZeroDivisionError: division by zero\); is it installed"
    ):
        command(["x/Y-v0", "--module", "odd"])


def test_a_crash_while_drawing_is_survived() -> None:
    assert try_rendering("dots/Segfault-v0", "dots").startswith("crashed with signal 11 while drawing")


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["robossl/Push-v0"]) == 0
    assert capsys.readouterr().out == "robossl/Push-v0: draws 96x96\n"
    assert command(["dots/NoGL-v0", "--module", "dots"]) == 1
    for env in ("Meta-World/MT1", "metaworld/push-v3"):
        assert examine(env) == 1
        assert f"{env}: metaworld is not installed: pip install 'robossl[metaworld]'" in capsys.readouterr().out


def test_without_an_id_every_family_gets_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    code = command([])
    said = capsys.readouterr().out
    assert all(family.about in said for family in FAMILIES.values())
    assert "robossl's own: nothing is missing" in said
    assert code in (0, 1)  # 1 where an extra is installed that lacks something
