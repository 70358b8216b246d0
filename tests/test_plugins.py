"""Plugins, with the code of docs/extend.md: an installed outside package, modules of the working folder, and errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from robossl.methods import METHODS
from robossl.methods import _check as check_method

RUN = """
import sys
from robossl.cli.main import main
for line in sys.argv[1:]:
    print("$", line, flush=True)
    if code := main(line.split()):
        sys.exit(code)
"""


def python(program: str, *arguments: str, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; the working folder is not on sys.path, as for the command `robossl`."""
    paths = [str(ROOT / name) for name in (".", "envs", "serving")]
    path = os.pathsep.join([str(site), *paths] if site else paths)
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


ENVIRONMENT = """
import gymnasium
from robossl_envs.collection.environment import import_env_module
import_env_module("my_env")
env = gymnasium.make("my/Dot-v0", render_mode="rgb_array")
env.reset(seed=0)
print(env.render().shape)
"""
RESOLVE = """
import sys
from robossl.data.sources import SOURCES
from robossl.errors import InputError
from robossl.methods import METHODS
try:
    print((SOURCES if sys.argv[1] == "tar" else METHODS).resolve(sys.argv[1]))
except InputError as error:
    print(error)
"""


def robossl(*lines: str, cwd: Path, site: Path | None = None) -> str:
    """Run command lines one after the other in one process, which imports torch once."""
    process = python(RUN, *lines, cwd=cwd, site=site)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and its episodes."""
    folder = tmp_path_factory.mktemp("page")
    text = (ROOT / "docs" / "extend.md").read_text()
    for name, code in re.findall(r"```\w+\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (folder / name).write_text(code)
    recipe = (folder / "mine.yaml").read_text().replace("resnet10t", "test_resnet, zero_init_last: false")
    (folder / "mine.yaml").write_text(recipe)
    subprocess.run([sys.executable, "make_episodes.py"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def site(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the page, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder, page], check=True, timeout=300)
    return folder


def broken(site: Path, package: str, entry_points: str) -> Path:
    """Make what pip leaves of an installed package: its name and its entry points."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return site


def test_an_installed_package_brings_a_method_a_source_a_factor_and_a_protocol(
    page: Path, site: Path, tmp_path: Path
) -> None:
    recipe = (page / "mine.yaml").read_text().replace("my_method:MyConfig", "mine")
    (tmp_path / "mine.yaml").write_text(recipe)
    profile = (ROOT / "robossl" / "probes" / "profiles" / "light_and_sensor.toml").read_text()
    (tmp_path / "own.toml").write_text(f'{profile}\n[factors.posterize]\nneed = "INV"\n')
    evaluate = "evaluate run --store store --label kind --protocol nearest_mean --bootstrap 100 --random-seeds 1"
    said = robossl(
        f"ingest {page} --out store",  # found by asking the sources
        "pretrain mine.yaml --out run --train.steps 2",
        "pretrain run --resume --train.steps 3 --method.momentum 0.99",
        evaluate,
        "probe run run --data store --profile own.toml --factors posterize --quick --frames 20 --out probe",
        "export run --out models",
        "list methods mine",
        "list factors posterize",
        cwd=tmp_path,
        site=site,
    )
    assert f"{page.name} (npy): 80 episodes" in said
    assert "name: mine\n" in (tmp_path / "run" / "config.yaml").read_text()
    assert "(nearest_mean): run is 50.0 points above majority" in " ".join(said.split())
    report = json.loads((tmp_path / "probe" / "report.json").read_text())
    assert {view["factor"] for view in report["views"]} == {"posterize"}
    assert {verdict["need"] for verdict in report["verdicts"] if verdict["factor"] == "posterize"} == {"INV"}
    assert json.loads(next((tmp_path / "models").rglob("card.json")).read_text())["method"] == "mine"
    assert "seen from the running mean of all outputs.  [my-robots]\n" in said
    assert "posterize  photometric, in bits dropped  [my-robots]\n" in said


@pytest.mark.slow
def test_the_tests_of_ours_run_over_an_installed_plugin(site: Path) -> None:
    files = ("methods/test_methods", "methods/test_micro_batches", "probes/test_factors", "evaluation/test_protocols")
    chosen = ["-k", "mine or posterize or nearest_mean", *(f"tests/{file}.py" for file in files)]
    process = python("import pytest; pytest.main()", "-q", "-p", "no:cacheprovider", *chosen, cwd=ROOT, site=site)
    assert "29 passed" in process.stdout, process.stdout


def test_a_module_of_the_working_folder_is_named_by_module_and_attribute(page: Path, tmp_path: Path) -> None:
    for name in ("my_source.py", "my_method.py", "my_env.py", "mine.yaml"):
        (tmp_path / name).write_text((page / name).read_text())
    robossl(
        f"ingest {page} --format my_source:MySource --out store --workers 1",
        "pretrain mine.yaml --out run --train.steps 2",
        "pretrain run --resume --train.steps 3",
        cwd=tmp_path,
    )
    assert "name: my_method:MyConfig\n" in (tmp_path / "run" / "config.yaml").read_text()
    assert python(ENVIRONMENT, cwd=tmp_path).stdout == "(64, 64, 3)\n"


def test_an_installed_module_goes_before_one_of_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('hidden')")
    said = python(RESOLVE, "json:Config", cwd=tmp_path).stdout
    assert "(AttributeError: module 'json' has no attribute 'Config')" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "absent",
            "the method 'absent' of the package broken cannot be imported (ModuleNotFoundError: No module named",
        ),
        ("raises", "raises_at_import.py:2: ZeroDivisionError: division by zero); mend or uninstall broken"),
        (
            "twice",
            "the method 'twice' of broken and second is there twice; uninstall one of them, or name it a:A or b:B",
        ),
        (
            "number",
            "of the package broken must be a frozen dataclass with build(encoder); math:pi is a float\n",
        ),
        ("tar", "TarSource'>\nrobossl: the format 'tar' of broken is not used, for robossl has its own; name it a:A"),
        ("rases", "unknown method 'rases'; did you mean 'raises'? choose from atc, "),
        ("rases", "raises, or name your own: MODULE:ATTRIBUTE"),
        (
            "absent:A",
            "; start in the folder of the module, or install it",
        ),
        ("own.py:A", "the method 'own.py:A' cannot be imported (ModuleNotFoundError: No module named 'own.py'"),
        ("own/own:A", "the method 'own/own:A' cannot be imported (ValueError: invalid format: 'own/own:A')"),
        ("own:Absent", "(AttributeError: module 'own' has no attribute 'Absent')"),
        ("own:Thawed", "must be frozen: @dataclass(frozen=True, slots=True)\n"),
        ("own:Plain", "must be a frozen dataclass with build(encoder); own:Plain is a class\n"),
        ("own:nothing", "must be a frozen dataclass with build(encoder); own:nothing is None\n"),
        ("own:Named", "has a field `name`, which in a configuration is the name of the method; rename the field"),
        ("own:Listed", "has a field `widths` of type list[int]; a configuration holds bool, int, float, str, Path, "),
        ("own:Hidden", "has an annotation that cannot be resolved (name 'Path' is not defined); import it outside"),
    ],
)
def test_each_plugin_that_cannot_be_used_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    site = broken(
        tmp_path / "site",
        "broken",
        "[robossl.methods]\nabsent = absent_module:A\nraises = raises_at_import:A\ntwice = a:A\nnumber = math:pi\n"
        "[robossl.sources]\ntar = a:A\n",
    )
    broken(site, "second", "[robossl.methods]\ntwice = b:B\n")
    (site / "raises_at_import.py").write_text("\n1 / 0\n")
    head = "@dataclass(frozen=True)\nclass"
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\nclass Base:\n"
        "    def build(self, encoder): ...\n\n\n"
        "class Plain: ...\n\n\nnothing = None\n\n\n"
        f"@dataclass\nclass Thawed(Base):\n    a: int = 1\n\n\n{head} Named(Base):\n    name: str = 'a'\n\n\n"
        f"{head} Listed(Base):\n    widths: list[int] = ()\n\n\n{head} Hidden(Base):\n    path: Path = ''\n"
    )
    process = python(RESOLVE, name, cwd=tmp_path, site=site)
    said = process.stdout + process.stderr
    assert message in said
    assert len(said.splitlines()) == (2 if name == "tar" else 1)


def test_a_broken_plugin_breaks_nothing_else(tmp_path: Path) -> None:
    """It is a line of `robossl list`; formats are detected and all factors are chosen without it."""
    groups = [f"[robossl.{group}]\nbroken = absent_module:A" for group in ("methods", "sources", "factors")]
    site = broken(tmp_path / "site", "broken", "\n".join([*groups, "[robossl.protocols]\nknn = a:a\n"]))
    listed = robossl("list", "list methods", "list protocols", cwd=tmp_path, site=site).splitlines()
    assert "robossl list methods    20" in listed and "robossl list protocols  2" in listed
    assert [line for line in listed if line.startswith("broken ") and line.endswith("[broken]")]
    assert listed[-1] == "the protocol 'knn' of broken is not used, for robossl has its own; name it a:a"
    (tmp_path / "empty").mkdir()
    refused = python(RUN, "ingest empty --out store", cwd=tmp_path, site=site).stderr.splitlines()
    assert refused[0].startswith("robossl: the format 'broken' of the package broken cannot be imported")
    assert "holds none of the formats" in refused[1]
    chosen = "from robossl.probes.start import choose_factors; print(choose_factors((), None)[-1])"
    process = python(chosen, cwd=tmp_path, site=site)
    assert process.stdout == "latency\n" and "the factor 'broken' of the package broken" in process.stderr


def test_a_format_that_fails_to_say_whether_it_accepts_is_named(tmp_path: Path) -> None:
    site = broken(tmp_path / "site", "failing", "[robossl.sources]\nfailing = failing:Failing\n")
    (site / "failing.py").write_text(
        "class Failing:\n    def __init__(self, root, labels=None, options=None): ...\n"
        "    def listing(self): ...\n    def frames(self, unit): ...\n"
        "    @staticmethod\n    def accepts(root):\n        return 1 / 0\n"
    )
    (tmp_path / "empty").mkdir()
    (refused,) = python(RUN, "ingest empty --out store", cwd=tmp_path, site=site).stderr.splitlines()
    assert refused.startswith("robossl: failing.Failing.accepts() failed for ")
    assert refused.endswith("failing.py:7: ZeroDivisionError: division by zero); mend it, or name the format")


def test_a_backbone_is_registered_with_timm_when_it_is_named(tmp_path: Path) -> None:
    site = broken(tmp_path / "site", "nets", "[robossl.backbones]\nmy_net = my_net:my_net\n")
    (site / "my_net.py").write_text(
        "import timm\n\n\n@timm.models.register_model\ndef my_net(pretrained=False, **options):\n"
        "    return timm.create_model('test_resnet', **options)\n"
    )
    program = (
        "from robossl.encoders.encoder import EncoderConfig, build_encoder; from robossl.cli.main import main\n"
        "print(build_encoder(EncoderConfig(backbone='my_net', input_hw=(32, 32))).feature_dim)\n"
        "main(['list', 'backbones', 'my_*'])\n"
    )
    process = python(program, cwd=tmp_path, site=site)
    assert process.stdout.splitlines()[0].isdigit(), process.stderr
    assert process.stdout.splitlines()[1:] == ["my_net  weights: none  [nets]"]


def test_our_methods_are_what_a_plugin_must_be() -> None:
    assert {name: check_method(METHODS.resolve(name)) for name in METHODS.built_in} == dict.fromkeys(METHODS, "")


def test_a_class_that_no_name_led_to_is_named_by_its_place() -> None:
    assert METHODS.name_of(METHODS.resolve("vip")) == "vip"
    assert METHODS.name_of(Path).endswith(":Path")
