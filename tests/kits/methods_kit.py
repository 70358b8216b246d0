"""What the tests of methods share: every method at a small size, made batches, two steps, the oracles.

A method's `reference/<name>.py` gives `loss(method, batch)`, its paper's formula with plain numbers, and may give
`SETTINGS` (a small configuration for tests), `VARIANTS` (more of them by name, laid over `SETTINGS`), `COLLAPSES`,
`COLLAPSE_RECIPE` and `SIZE`, the pixels of its largest view, where feature maps must have several bins.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from dataclasses import fields
from functools import cache
from types import ModuleType

import torch
from places import TESTS, kits_environment

from robossl.common.config import from_mapping
from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.methods import METHODS, resolve_method
from robossl.methods.parts.batch_norm import convert_split_batchnorm, convert_sync_batchnorm
from robossl.training.micro_batches import accumulate, split
from robossl.views import Batch, View, ViewSpec

REFERENCES = TESTS / "reference"
TINY = EncoderConfig(backbone="test_resnet", zero_init_last=False)  # else half the graph is dead at the start
SIZE = 32  # pixels of the largest view
SMALLEST = 24  # on 16 px the last stage sees 1 x 1, where torch 2.15's bf16 convolution gives random gradients on CPUs
COLUMN_DIM = 3


@cache
def reference(name: str) -> ModuleType | None:
    """The oracle of a method, if there is one."""
    path = REFERENCES / f"{name}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configured(name: str, **words: object):
    """A method's configuration: its small settings with `words` laid over them, read as yaml would be."""
    settings = getattr(reference(name), "SETTINGS", {})
    return from_mapping(settings | words, resolve_method(name))


def settings_at(name: str, pixels: int) -> dict[str, object]:
    """A method's small settings with views of so many pixels, smaller crops in proportion."""
    settings = getattr(reference(name), "SETTINGS", {})
    defaults = {field.name: field.default for field in fields(resolve_method(name))}
    sizes = {key: view.size for key, view in defaults.items() if isinstance(view, ViewSpec)}
    views = {
        key: {"size": round(pixels * size / max(sizes.values()))} | settings.get(key, {}) for key, size in sizes.items()
    }
    return {"name": name} | settings | views


def cases() -> dict[str, object]:
    """Every method and every variant of one, by name."""
    found = {name: configured(name) for name in METHODS}
    for name in METHODS:
        for variant, words in getattr(reference(name), "VARIANTS", {}).items():
            found[f"{name} {variant}"] = configured(name, **words)
    return found


def collapses() -> list[tuple[str, str, dict[str, object]]]:
    """(method, what is broken, the settings that break it)."""
    found = [(name, getattr(reference(name), "COLLAPSES", {})) for name in METHODS]
    return [(name, what, words) for name, broken in found for what, words in broken.items()]


def build(config, *, seed=0, dtype=torch.float64, ranks=1):
    """The method on a tiny encoder, its batch-norm placed as for one of `ranks` processes."""
    torch.manual_seed(seed)
    method = config.build(build_encoder(TINY)).to(dtype)
    method.before_step(0, 2)
    if method.batch_norm_groups:
        return convert_split_batchnorm(method, groups=method.batch_norm_groups // ranks)
    return convert_sync_batchnorm(method) if ranks > 1 else method


def make_batch(method, *, b=8, seed=0):
    """Normalised noise with a different mean for each sample and view; smaller crops are smaller here too."""
    draw = torch.Generator().manual_seed(seed)
    dtype = next(method.parameters()).dtype
    specs = method.views()
    largest = max(spec.size for spec in specs)
    pixels = getattr(reference(type(method).__module__.rpartition(".")[2]), "SIZE", SIZE)
    return Batch(
        tuple(make_view(spec, b, max(SMALLEST, round(pixels * spec.size / largest)), draw, dtype) for spec in specs),
        index=(torch.arange(b) * 7 + seed) % 20,
    )


def make_view(spec, b, size, draw, dtype):
    t = spec.clip.num_frames
    lead = (b, t) if t else (b,)
    pixels = torch.randn(*lead, 3, size, size, generator=draw, dtype=torch.float64)
    pixels = pixels + torch.randn(*lead, 3, 1, 1, generator=draw, dtype=torch.float64)
    corners = torch.rand(*lead, 2, 2, generator=draw, dtype=torch.float64)
    low, extent = corners[..., 0, :] * 0.4, 0.3 + 0.3 * corners[..., 1, :]
    flipped = (torch.rand(*lead, generator=draw) < 0.5).unsqueeze(-1)
    box = torch.cat([low, low + extent], -1)
    box = torch.where(flipped, box[..., [2, 1, 0, 3]], box)
    times = torch.arange(max(t, 1), dtype=torch.float64) * spec.clip.stride_seconds
    valid = torch.ones(lead, dtype=torch.bool)
    if t > 2:
        valid[b // 2, t - 1] = False  # one episode ends within its clip
    columns = {
        name: torch.randn(*lead, COLUMN_DIM, generator=draw, dtype=torch.float64).to(dtype)
        for name in spec.clip.columns
    }
    return View(
        pixels=pixels.to(dtype),
        box=box,
        source_hw=torch.tensor([[48, 64]]).repeat(b, 1),
        params={},
        time_seconds=times.repeat(b, 1) if t else torch.zeros(b, dtype=torch.float64),
        valid=valid,
        columns=columns,
    )


def train_twice(method, model, pick=slice(None), *, parts=1, steps=2):
    """Two batches with a step between, so that what one leaves behind shows in the other; all that came of it."""
    results = {}
    for i in range(steps):
        method.before_step(i, 2)
        model.zero_grad()
        torch.manual_seed(i)
        loss = accumulate(method, model, split(make_batch(method, seed=i)[pick], parts), contextlib.nullcontext)
        method.after_backward()
        with torch.no_grad():
            for weight in method.parameters():
                if weight.grad is not None:
                    weight -= 0.01 * weight.grad / weight.grad.norm().clamp_min(1e-8)
        method.after_step((i + 1) / 2)
        results[f"loss.{i}"] = loss.value.detach()
    gradients = {name: weight.grad for name, weight in method.named_parameters() if weight.grad is not None}
    results |= {f"gradient.{name}": gradient for name, gradient in gradients.items()}
    return results | {f"buffer.{name}": buffer.double() for name, buffer in method.named_buffers()}


def on_two_ranks(script, out, request):
    """Run a test file as the script of two ranks, on the cases of its tests that use the fixture `two` and are run."""
    asked = [item for item in request.session.items if item.path == request.path and "two" in item.fixturenames]
    names = [item.callspec.params["case"] for item in asked]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, script, str(out), *names], check=True, env=kits_environment(), timeout=900)


def gradient(method, batch):
    """All gradients of one loss as one vector."""
    method(batch).value.backward()
    return torch.cat([weight.grad.flatten() for weight in method.parameters() if weight.grad is not None])
