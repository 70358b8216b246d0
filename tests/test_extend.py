"""Adding a method touches one file, one line of METHODS and one configuration: done here, in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

METHOD = '''"""Toy: the two views' features are pulled together and kept apart in variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from robossl import ranks
from robossl.encoder import Encoder
from robossl.losses import full_precision
from robossl.method import Loss, Method
from robossl.views import Batch, ViewSpec


@dataclass(frozen=True, slots=True)
class ToyConfig:
    """How much the variance weighs."""

    variance: float = 1.0
    view: ViewSpec = ViewSpec()

    def build(self, encoder: Encoder) -> Toy:
        """Make the method around an encoder."""
        return Toy(encoder, self)


class Toy(Method):
    """Distance of the views, less the variance of each over the global batch."""

    def __init__(self, encoder: Encoder, config: ToyConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.projector = nn.Linear(encoder.feature_dim, 8)

    def views(self) -> tuple[ViewSpec, ...]:
        """Two views."""
        return (self.config.view, self.config.view)

    def forward(self, batch: Batch) -> Loss:
        """Mean squared distance less the mean std."""
        z0, z1 = (full_precision(self.projector(self.encoder(view.pixels).pooled)) for view in batch.views)
        spread = torch.stack([ranks.gather(z).std(dim=0).mean() for z in (z0, z1)]).mean()
        loss = (z0 - z1).square().mean() - self.config.variance * spread
        return Loss(loss, metrics={}, outputs=(z0.detach(), z1.detach()))
'''

ORACLE = '''"""The toy by the letter."""

import statistics


def loss(method, batch):
    z0, z1 = (method.projector(method.encoder(view.pixels).pooled).tolist() for view in batch.views)
    distances = [(a - b) ** 2 for x, y in zip(z0, z1, strict=True) for a, b in zip(x, y, strict=True)]
    spreads = [statistics.stdev(column) for z in (z0, z1) for column in zip(*z, strict=True)]
    return statistics.fmean(distances) - statistics.fmean(spreads)
'''

CONFIG = """method: {name: toy, view: {size: 32}}
data: {store: stores/droid}
encoder: {backbone: resnet10t, input_hw: [32, 32]}
"""


@pytest.mark.slow
def test_a_toy_method_dropped_into_a_copy_passes_the_suite_of_all_methods(tmp_path: Path) -> None:
    for folder in ("robossl", "envs", "serving", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copytree(ROOT / "robossl" / "data", tmp_path / "robossl" / "data", dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "robossl" / "methods" / "toy.py").write_text(METHOD)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "toy.yaml").write_text(CONFIG)
    (tmp_path / "tests" / "reference" / "toy.py").write_text(ORACLE)
    table = tmp_path / "robossl" / "methods" / "__init__.py"
    table.write_text(
        table.read_text().replace("METHODS = {\n", 'METHODS = {\n    "toy": "robossl.methods.toy:ToyConfig",\n')
    )

    paths = os.pathsep.join(str(tmp_path / folder) for folder in (".", "envs", "serving"))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_methods.py", "-k", "toy"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout, done.stdout
    load = (
        "from pathlib import Path; from robossl.config import load; from robossl.run import RunConfig;"
        "print(type(load(Path('configs/toy.yaml'), RunConfig).method).__module__)"
    )
    named = subprocess.run([sys.executable, "-c", load], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert named.stdout.strip() == "robossl.methods.toy", named.stderr
