"""The part that serves: latency, throughput and parity of exported models on CPU, CUDA and TensorRT."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rows import Part, add_row

from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.gpus import load_tensorrt
from robossl.encoders.inference import OnnxEncoder
from robossl.encoders.providers import GpuOptions, Provider
from robossl.errors import RobosslError
from robossl.exporting.export import export
from robossl.exporting.parity import GATES, check_parity, natural_frames

BATCHES = (1, 32)


def serve(part: Part) -> None:
    """Export a ViT and a ResNet with random weights and run them on every provider."""
    import torch

    sizes, cache = part.sizes, part.runs / "engines"
    variants: list[tuple[str, Provider, GpuOptions, int | None]] = [
        ("CPU", "cpu", GpuOptions(), None),
        ("CUDA", "cuda", GpuOptions(), None),
        ("CUDA, TF32", "cuda", GpuOptions(tf32=True, conv_search="exhaustive"), None),
        ("CUDA, graph", "cuda", GpuOptions(cuda_graph=True), 1),
        ("TensorRT", "tensorrt", GpuOptions(cache=cache, best_batch=max(BATCHES)), None),
        ("TensorRT, fp16", "tensorrt", GpuOptions(cache=cache, best_batch=max(BATCHES), precision="fp16"), None),
        ("TensorRT, graph", "tensorrt", GpuOptions(cache=cache, cuda_graph=True), 1),
    ]
    for backbone in (sizes.vit, sizes.resnet):
        torch.manual_seed(0)
        config = EncoderConfig(backbone, input_hw=(sizes.size, sizes.size), zero_init_last=False)
        run = part.runs / "encoders" / backbone
        save_encoder(build_encoder(config), run / "encoder", extra={})
        hw, models = (sizes.size, sizes.size), part.runs / "models"
        folders = {
            batch: export(
                run, out=models, name=f"{backbone}_{batch}", fixed_hw=hw, fixed_batch=batch, outputs=("pooled",)
            )
            for batch in (None, 1)
        }
        reference = OnnxEncoder(folders[None], batch_size=max(BATCHES))
        for name, provider, gpu, batch in variants:
            # Without a GPU all variants run on the CPU, so that this script is tried.
            chosen: Provider = "cpu" if part.is_dry else provider
            label = f"{backbone}, {name}{' (dry: CPU)' if part.is_dry else ''}"
            if chosen == "tensorrt" and load_tensorrt() is None:
                add_row(part.out, "onnx", label, None, note="skipped: TensorRT 10 is not installed")
                continue
            try:
                _measure(part, label, folders[batch], chosen, gpu, batch, reference)
            except RobosslError as error:
                add_row(part.out, "onnx", label, None, note=f"failed: {error}")


def _measure(
    part: Part, name: str, folder: Path, provider: Provider, gpu: GpuOptions, batch: int | None, reference: OnnxEncoder
) -> None:
    began, before = time.perf_counter(), _used_gib(part)
    encoder = OnnxEncoder(folder, provider=provider, gpu=gpu, batch_size=max(BATCHES))
    add_row(
        part.out,
        "onnx",
        f"{name}: load",
        time.perf_counter() - began,
        "s",
        "with the build of the engine" if provider == "tensorrt" else "",
    )
    cases = [natural_frames(num, (part.sizes.size, part.sizes.size), seed=num) for num in (1, 3, 5)]
    gates = GATES["fp16" if gpu.changes_numbers(provider) else "fp32"]
    agreement = check_parity(reference, encoder, cases, gates=gates, provider=provider).outputs["pooled"]
    note = f"centred cosine {agreement.centred_cosine:.7f} with the CPU"
    add_row(part.out, "onnx", f"{name}: largest difference", agreement.max_abs_difference, "", note)
    for size in BATCHES if batch is None else (batch,):
        frames = np.repeat(cases[0], size, axis=0)
        times = _times(lambda frames=frames: encoder(frames), part.sizes.seconds / 3)
        p50, p99 = np.percentile(times, [50, 99])
        note = f"p99 {p99 * 1e3:.3g} ms, {size / p50:.0f} frames/s, {len(times)} runs"
        add_row(part.out, "onnx", f"{name}: batch {size}", p50 * 1e3, "ms", note)
    after = _used_gib(part)
    if before is not None and after is not None:
        add_row(part.out, "onnx", f"{name}: memory", after - before, "GiB", "of the GPU, more than before")


def _times(run: Callable[[], object], seconds: float) -> list[float]:
    for _ in range(3):
        run()
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 3:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def _used_gib(part: Part) -> float | None:
    """Return the GPU memory in use by all processes, as the driver reports it."""
    if part.is_dry:
        return None
    import torch

    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30
