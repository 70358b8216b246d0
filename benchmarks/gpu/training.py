"""Parts that train: a run that is killed and resumed, samples per second, Imagenette with online kNN."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from rows import Part, add_row
from safetensors.torch import load_file

from robossl.common.config import from_mapping, to_yaml
from robossl.common.ranks import Ranks
from robossl.data.store import open_store
from robossl.training.build import build_trainer
from robossl.training.checkpoint import checkpoints
from robossl.training.optim import set_rates
from robossl.training.run_config import OnlineKnnConfig, RunConfig

TARGET = "target 2400; stable-pretraining publishes 871"
GIB = 2**30


def config_of(part: Part, method: str, *, backbone: str, size: int, **train: object) -> RunConfig:
    """Configure a run in bf16 on the synthetic store, with the method's own numbers."""
    small = {"prototypes": 64, "hidden_dim": 32, "bottleneck_dim": 16, "num_local_views": 2} if part.is_dry else {}
    local = max(16, size * 96 // 224 // 16 * 16)  # in patches of 16 pixels; 96 for views of 224
    views = {
        "simclr": {"view": {"size": size}},
        "dino": {**{f"global_view_{i}": {"size": size} for i in (0, 1)}, "local_view": {"size": local}, **small},
    }
    return from_mapping(
        {
            "method": {"name": method, **views[method]},
            "encoder": {"backbone": backbone, "input_hw": [size, size]},
            "data": {"store": str(part.store), "resident_gib": 60.0},
            "optim": {"name": "adamw", "lr": 0.0005},
            "train": {"device": part.sizes.device, "precision": "bf16", "threads": 0, "sinks": [], **train},
        },
        RunConfig,
    )


def _pretrain(config: RunConfig, out: Path, *extra: str) -> subprocess.Popen[bytes]:
    yaml = out.with_suffix(".yaml")
    yaml.parent.mkdir(parents=True, exist_ok=True)
    yaml.write_text(to_yaml(config))
    argv = [sys.executable, "-m", "robossl", "pretrain", str(yaml), "--out", str(out), *extra]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=(out.parent / f"{out.name}.log").open("ab"))


def _ended(process: subprocess.Popen[bytes], out: Path) -> None:
    if process.wait():
        log = (out.parent / f"{out.name}.log").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"pretrain ended with {process.returncode}: {log[-1] if log else 'no word'}")


def resume(part: Part) -> None:
    """Kill a run with SIGKILL, resume it, and compare its weights with those of a run that was not killed."""
    sizes = part.sizes
    # A dry run has time for one method.
    for method, backbone in (("simclr", sizes.resnet), ("dino", sizes.vit))[: 1 if part.is_dry else 2]:
        every = max(1, sizes.steps // 4)
        config = config_of(
            part,
            method,
            backbone=backbone,
            size=sizes.size,
            steps=sizes.steps,
            batch_size=sizes.resume_batch,
            checkpoint_every=every,
            keep_checkpoints=2,
            log_every=1,
        )
        straight, killed = (part.runs / f"{method}_{name}" for name in ("straight", "killed"))
        _ended(_pretrain(config, straight), straight)
        process = _pretrain(config, killed)
        while process.poll() is None and not any(checkpoints(killed / "checkpoints")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        at = max(int(path.name[5:]) for path in checkpoints(killed / "checkpoints"))
        _ended(_pretrain(config, killed, "--resume"), killed)
        differ = _differing(straight, killed, sizes.steps)
        note = f"killed after step {at} of {sizes.steps}, {backbone}; weights and optimizer that differ from straight"
        add_row(part.out, "resume", f"{method} bit-exact", float(differ), "tensors", note)


def _differing(a: Path, b: Path, step: int) -> int:
    def read(run: Path) -> dict[str, torch.Tensor]:
        folder = run / "checkpoints" / f"step_{step:08d}"
        return load_file(folder / "method.safetensors") | load_file(folder / "optimizer.safetensors")

    one, other = read(a), read(b)
    assert one.keys() == other.keys()
    return sum(not torch.equal(one[name], other[name]) for name in one)


def throughput(part: Part) -> None:
    """Train from resident frames and count samples per second."""
    sizes = part.sizes
    for method, is_compiled in (("simclr", False), ("dino", False), ("simclr", True)):
        if is_compiled and part.is_dry:
            continue
        rate, gib = _rate(
            part,
            config_of(
                part,
                method,
                backbone=sizes.vit,
                size=sizes.size,
                steps=1_000_000,
                batch_size=sizes.batch,
                compile=is_compiled,
            ),
            f"{method}{'_compiled' if is_compiled else ''}",
        )
        what = f"{method} {sizes.vit} at {sizes.size} px{', compiled' if is_compiled else ''}"
        note = TARGET if method == "simclr" else ""
        add_row(
            part.out, "throughput", what, rate, "samples/s", f"batch {sizes.batch}, bf16, resident; {note}".rstrip("; ")
        )
        if gib is not None:
            add_row(part.out, "throughput", f"{what}: peak memory", gib, "GiB", "allocated by torch")


def _rate(part: Part, config: RunConfig, name: str) -> tuple[float, float | None]:
    """Return samples per second and the peak of GPU memory in GiB."""
    is_gpu = config.train.device == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer = build_trainer(config, Ranks.join(config.train.device), part.runs / f"rate_{name}", resume=False)
    batches = enumerate(trainer.loader.batches(start=0, stop=config.train.steps))

    def run(steps: int) -> None:
        for _ in range(steps):
            step, raw = next(batches)
            set_rates(
                trainer.optimizer, config.optim, step=step, steps=config.train.steps, batch_size=config.train.batch_size
            )
            trainer.step(step, trainer.augment(raw))
        if is_gpu:
            torch.cuda.synchronize()

    run(5 if is_gpu else 1)  # kernels are chosen, memory is allocated
    steps, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < part.sizes.seconds:
        run(4 if is_gpu else 1)
        steps += 4 if is_gpu else 1
    gib = torch.cuda.max_memory_allocated() / GIB if is_gpu else None
    return steps * config.train.batch_size / taken, gib


def knn(part: Part) -> None:
    """Train ResNet-18 with SimCLR on Imagenette for as many epochs as fit, with online kNN."""
    sizes = part.sizes
    path = part.store if part.is_dry else part.imagenette
    if path is None or not path.exists():
        add_row(part.out, "knn", "skipped", None, note=f"no store of Imagenette at {path}; make it with robossl ingest")
        return
    began = time.perf_counter()
    store = open_store(path)
    num_frames = len(store.rows("train"))
    label = store.label_names[0]
    probe = config_of(part, "simclr", backbone=sizes.resnet, size=sizes.knn_size, batch_size=sizes.batch)
    probe = replace(probe, data=replace(probe.data, store=path))
    rate, _ = _rate(part, probe, "knn")
    left = part.seconds - (time.perf_counter() - began)
    # A fifth is left for the start, kNN and the last checkpoint.
    steps = 4 if part.is_dry else max(10, int(0.8 * left * rate / sizes.batch))
    every = max(1, steps // 8)
    config = replace(
        probe,
        optim=replace(probe.optim, lr=0.001, warmup_steps=max(1, steps // 20)),
        train=replace(probe.train, steps=steps, checkpoint_every=steps, log_every=every),
        knn=OnlineKnnConfig(label, every=every),
    )
    out = part.runs / "knn"
    process, seen = _pretrain(config, out), 0
    while True:
        is_over = process.poll() is not None
        lines = (out / "metrics.jsonl").read_text().splitlines() if (out / "metrics.jsonl").exists() else []
        for line in lines[seen:]:
            row = json.loads(line)
            if f"knn/{label}" in row:
                epochs = row["step"] * sizes.batch / num_frames
                note = (
                    f"step {row['step']} of {steps}, {epochs:.1f} epochs of {num_frames} frames at {sizes.knn_size} px"
                )
                add_row(part.out, "knn", f"simclr {sizes.resnet}, online kNN", 100 * row[f"knn/{label}"], "%", note)
        seen = len(lines)
        if is_over:
            return _ended(process, out)
        time.sleep(0.2)
