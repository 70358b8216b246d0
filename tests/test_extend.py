"""Adding a method touches one file, one line of METHODS and one configuration; a factor one file and one of FACTORS.

Done here, in a copy of the package.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robossl.encoder import EncoderConfig, build_encoder, save_encoder

ROOT = Path(__file__).parents[1]

METHOD = '''"""Toy: the two views' outputs, less their running mean, point the same way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.encoder import Encoder
from robossl.losses import full_precision
from robossl.method import Loss, Method
from robossl.teacher import Center
from robossl.views import Batch, ViewSpec

VIEW = ViewSpec()


@dataclass(frozen=True, slots=True)
class ToyConfig:
    """How slowly the mean moves."""

    momentum: float = 0.9
    view: ViewSpec = VIEW

    def build(self, encoder: Encoder) -> Toy:
        """Make the method around an encoder."""
        return Toy(encoder, self)


class Toy(Method):
    """One view's output against the other's, which gets no gradient."""

    def __init__(self, encoder: Encoder, config: ToyConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.projector = nn.Linear(encoder.feature_dim, 8)
        self.center = Center(8, momentum=config.momentum)

    def views(self) -> tuple[ViewSpec, ...]:
        """Two views."""
        return (self.config.view, self.config.view)

    def forward(self, batch: Batch) -> Loss:
        """Minus the mean cosine; the mean moves after it."""
        z0, z1 = (full_precision(self.projector(self.encoder(view.pixels).pooled)) for view in batch.views)
        center = self.center.mean.clone()  # as it was: it moves before the backward pass
        loss = -F.cosine_similarity(z0 - center, z1.detach() - center).mean()
        self.remember({"outputs": torch.cat([z0, z1])})
        return Loss(loss, metrics={}, outputs=(z0.detach(), z1.detach()))

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Move the mean."""
        self.center.update(rows["outputs"])
'''

ORACLE = '''"""The toy by the letter."""

import math
import statistics


def loss(method, batch):
    z0, z1 = (method.projector(method.encoder(view.pixels).pooled).tolist() for view in batch.views)
    mean = method.center.mean.tolist()
    cosines = []
    for pair in zip(z0, z1, strict=True):
        a, b = ([x - m for x, m in zip(row, mean, strict=True)] for row in pair)
        cosines.append(sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b)))
    return -statistics.fmean(cosines)
'''

CONFIG = """method: {name: toy, view: {size: 32}}
data: {store: stores/droid}
encoder: {backbone: resnet10t, input_hw: [32, 32]}
"""


def copied(folder: Path, files: dict[str, str], add_line: tuple[str, str, str, str]) -> dict[str, str]:
    """The package and its tests in a folder, with some files more and one line in a table; what runs it there."""
    for name in ("robossl", "envs", "serving", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copytree(ROOT / "robossl" / "data", folder / "robossl" / "data", dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    table, variable, key, target = add_line
    path = folder / table
    path.write_text(path.read_text().replace(f"{variable} = {{\n", f'{variable} = {{\n    "{key}": "{target}",\n'))
    paths = os.pathsep.join(str(folder / name) for name in (".", "envs", "serving"))
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


FACTOR = '''"""Posterize: fewer grey levels."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Drop the lowest bits."""
    step = (2 ** values[:, 0]).astype(np.uint8)[:, None, None, None]
    return pixels // step * step


POSTERIZE = Factor(
    name="posterize",
    title="posterize",
    unit="bits dropped",
    family="photometric",
    clean=0.0,
    sides=((1.0, 2.0, 3.0, 4.0, 5.0),),
    apply=on_pixels(change),
)
'''


@pytest.mark.slow
def test_a_factor_dropped_into_a_copy_passes_the_suite_of_all_factors_and_is_probed(tmp_path: Path) -> None:
    add_line = (
        "robossl/probes/factors/__init__.py",
        "FACTORS",
        "posterize",
        "robossl.probes.factors.posterize:POSTERIZE",
    )
    environment = copied(tmp_path, {"robossl/probes/factors/posterize.py": FACTOR}, add_line)
    shutil.copytree(ROOT / "tests" / "data", tmp_path / "tests" / "data")

    def run(*line: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    found = run("pytest", "-q", "-p", "no:cacheprovider", "tests/test_probe_factors.py", "-k", "posterize")
    assert "5 passed" in found, found
    run("robossl", "ingest", "tests/data/droid", "--out", "store", "--short-side", "48")
    encoder = build_encoder(EncoderConfig(backbone="test_resnet", input_hw=(32, 32), zero_init_last=False))
    save_encoder(encoder, tmp_path / "encoder", extra={})
    run("robossl", "probe", "run", "encoder", "--data", "store", "--factors", "posterize", "--quick", "--out", "report")
    shown = {view["factor"] for view in json.loads((tmp_path / "report" / "report.json").read_text())["views"]}
    assert shown == {"posterize"}


@pytest.mark.slow
def test_a_toy_method_dropped_into_a_copy_passes_the_suite_of_all_methods(tmp_path: Path) -> None:
    add_line = ("robossl/methods/__init__.py", "METHODS", "toy", "robossl.methods.toy:ToyConfig")
    files = {"robossl/methods/toy.py": METHOD, "configs/toy.yaml": CONFIG, "tests/reference/toy.py": ORACLE}
    environment = copied(tmp_path, files, add_line)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "toy"]
    run += ["tests/test_methods.py", "tests/test_micro_batches.py"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout, done.stdout
    load = (
        "from pathlib import Path; from robossl.config import load; from robossl.run import RunConfig;"
        "print(type(load(Path('configs/toy.yaml'), RunConfig).method).__module__)"
    )
    named = subprocess.run([sys.executable, "-c", load], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert named.stdout.strip() == "robossl.methods.toy", named.stderr
