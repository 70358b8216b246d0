"""The recipes of configs/: each loads, online kNN reads what is trained, and numbers are whose the header says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from methods_kit import make_view, reference
from places import ROOT

from robossl.common.config import load
from robossl.encoders.encoder import Encoder, build_encoder
from robossl.methods import METHODS
from robossl.methods.base import MethodConfig
from robossl.methods.distill import DistillConfig
from robossl.training.run_config import RunConfig
from robossl.views import Batch

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
SMALL_TRANSFORMERS = [path for path in RECIPES if "_vit_tiny_" in path.name]


def recipe(name: str) -> RunConfig:
    return load(ROOT / "configs" / f"{name}.yaml", RunConfig)


def with_small_teacher(method: MethodConfig) -> MethodConfig:
    """The method's configuration with a teacher that is on this machine, if it has one."""
    if not isinstance(method, DistillConfig):
        return method
    return replace(method, teacher=(reference("distill").TEACHER,))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path):
    assert load(path, RunConfig).train.steps > 0


@pytest.mark.parametrize("path", SMALL_TRANSFORMERS, ids=lambda path: path.stem)
def test_online_knn_reads_what_is_trained(path):
    """A transformer has a class token and patches: the loss must depend on the one that kNN embeds frames by."""
    config = load(path, RunConfig)
    torch.manual_seed(0)
    method = with_small_teacher(config.method).build(build_encoder(config.encoder))
    method.before_step(0, 10)
    seen = []
    for encoder in (module for module in method.modules() if isinstance(module, Encoder)):
        encoder.register_forward_hook(lambda _, __, out: seen.append(out))
    draw = torch.Generator().manual_seed(0)
    views = tuple(make_view(spec, 4, spec.size, draw, torch.float32) for spec in method.views())
    loss = method(Batch(views, torch.arange(4))).value
    outputs = [out for out in seen if out.pooled.requires_grad]
    fields = {"pooled": ("pooled", "dense"), "cls": ("cls",)}[config.knn.output if config.knn else "pooled"]
    wanted = [getattr(out, name) for out in outputs for name in fields]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in gradients), fields


def test_dino_s_recipe_is_the_authors_plain_command():
    """Vanilla DINO training, README of facebookresearch/dino: main_dino.py with its defaults."""
    method = recipe("dino_vit_small_imagenet").method
    assert method.teacher_temperature == method.teacher_temperature_start == 0.04
    assert (method.norm_last_layer, method.momentum, method.prototypes) == (True, 0.996, 65536)
    assert method.transformer == "official"


def test_barlow_twins_recipe_gives_the_steps_of_the_authors_gradient():
    """Their gradient is the loss's over 16 GPUs (test_barlow_twins.py), which LARS takes out of matrices alone."""
    config = recipe("barlow_twins_resnet50_imagenet")
    assert config.optim.bias_lr * 16 == pytest.approx(0.0048)
    assert config.optim.weight_decay / 16 == pytest.approx(1e-6)
    assert config.method.redundancy_weight == 0.0051


@pytest.mark.parametrize("name", ["byol", "simclr"])
def test_the_papers_recipes_have_the_colours_of_the_authors_code(name):
    views = recipe(f"{name}_resnet50_imagenet").method.build(build_encoder(recipe("quickstart").encoder)).views()
    assert {view.colour for view in views} == {name}


def test_methods_page_says_of_every_method_what_differs_from_the_authors_code():
    """A row of five cells each: loss, gradient, augmentation, schedule, evaluation."""
    page = (ROOT / "docs" / "methods.md").read_text().partition("## What differs from the authors' code")[2]
    lines = [line.strip().strip("|").strip() for line in page.splitlines() if line.startswith("|")]
    rows = [re.split(r"\s*\|\s*", line) for line in lines]
    assert rows[0] == ["method", "loss", "gradient", "augmentation", "schedule", "evaluation"]
    found = {row[0].strip("`"): row[1:] for row in rows[2:]}
    assert sorted(found) == sorted(METHODS)
    assert all(len(cells) == 5 and all(cells) for cells in found.values())
