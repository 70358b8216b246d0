"""`robossl list`: every kind, quickly and without torch where its list needs none."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import get_args

import pytest
from places import ROOT
from robossl_envs.factors import FACTORS as NUISANCES

from robossl.cli.listing import Kind, list_names
from robossl.cli.main import main
from robossl.errors import InputError
from robossl.probes.factors import FACTORS
from robossl.probes.profile import load_profile, profile_names


def test_what_can_be_listed_is_counted_and_ours_is_listed_without_torch() -> None:
    program = (
        "import sys; from robossl.cli.main import main\n"
        "for kind in ([], ['methods'], ['sources'], ['factors'], ['protocols'], ['envs'], ['profiles'], ['recipes']):\n"
        "    assert main(['list', *kind]) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    counts = [line.split() for line in done.stdout.splitlines()[: len(get_args(Kind))]]
    assert [line[2] for line in counts] == list(get_args(Kind))
    lines = done.stdout.splitlines()[len(counts) :]
    assert len(lines) == sum(int(line[3]) for line in counts if line[3].isdigit())
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)  # each has a title


def test_a_pattern_chooses_and_one_that_matches_nothing_is_refused() -> None:
    assert [line.split()[0] for line in list_names("methods", "moco*").splitlines()] == ["moco", "moco_v3"]
    shown = list_names("backbones", "vit_small_patch16_224").splitlines()
    assert len(shown) == 1 and "augreg_in21k_ft_in1k" in shown[0]
    with pytest.raises(InputError, match=r"none of the \d+ protocols match 'svm'; robossl list protocols shows all"):
        list_names("protocols", "svm")


def test_an_unknown_kind_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "method"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("robossl: unknown kind of names 'method'; did you mean 'methods'? choose from methods, ")
    assert said.count("\n") == 1


def test_recipes_are_described_in_whole_sentences() -> None:
    rows = [line.split(maxsplit=1)[1] for line in list_names("recipes").splitlines()]
    assert all(row.endswith(".") and "--out" not in row for row in rows)
    assert any(row.endswith("batch 4096, LARS, and that code's colours.") for row in rows)


def test_each_scene_factor_says_what_it_changes_and_by_how_much() -> None:
    titles = dict(line.split(maxsplit=1) for line in list_names("factors").splitlines())
    assert len(set(titles.values())) == len(titles)
    for name, place in FACTORS.built_in.items():
        if place.startswith("robossl.probes.factors.scene:"):
            shown, *strengths = re.findall(r"[\d.]*\d", titles[name].replace("at strengths", ";")), "1", "5"
            ends = [f"{abs(side[i]):g}" for side in NUISANCES[name].sides for i in (0, -1)]
            assert list(dict.fromkeys(shown)) == list(dict.fromkeys([*ends, *strengths])), name


def test_profiles_have_the_titles_that_the_probes_give_them() -> None:
    titles = dict(line.split(maxsplit=1) for line in list_names("profiles").splitlines())
    assert titles == {name: load_profile(name, factors=FACTORS).title for name in profile_names()}


def test_recipes_are_listed_by_the_name_that_pretrain_takes() -> None:
    names = [line.split()[0] for line in list_names("recipes").splitlines()]
    assert names == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
