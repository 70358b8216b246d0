"""Time each augmentation, in ms per view, against torchvision v2 applied per sample.

    python benchmarks/bench_augment.py --device cpu

torchvision runs on one thread, as in a loader's worker, on uint8 images until the normalisation (its fast case). Ours
runs on one thread for the ratio, then on all. Both alternate on the same frames; each time is a median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.transforms import v2

from robossl.augment.pipeline import Augment
from robossl.augment.random_draws import draw
from robossl.views import ClipSpec, RawBatch, RawFrames, ViewSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BARE = ViewSpec(hflip_p=0.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)
WHOLE = ViewSpec()  # MoCo v2
OPERATIONS = {
    "crop, normalise": BARE,
    "+ flip": replace(BARE, hflip_p=WHOLE.hflip_p),
    "+ colour jitter": replace(BARE, jitter_p=WHOLE.jitter_p),
    "+ grayscale": replace(BARE, grayscale_p=WHOLE.grayscale_p),
    "+ blur": replace(BARE, blur_p=WHOLE.blur_p),
    "+ solarize p .2": replace(BARE, solarize_p=0.2),
    "+ rotation 15": replace(BARE, rotation_degrees=15.0),
    "whole of MoCo v2": WHOLE,
}


def torchvision_pipeline(spec: ViewSpec) -> Callable[[Tensor], Tensor]:
    """Compose the same operations from torchvision."""
    jitter = v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    steps: list[torch.nn.Module] = [v2.RandomResizedCrop(spec.size, spec.scale, spec.ratio, antialias=True)]
    if spec.rotation_degrees:
        steps.insert(0, v2.RandomRotation(spec.rotation_degrees, v2.InterpolationMode.BILINEAR))
    optional = {
        v2.RandomHorizontalFlip(spec.hflip_p): spec.hflip_p,
        v2.RandomApply([jitter], spec.jitter_p): spec.jitter_p,
        v2.RandomGrayscale(spec.grayscale_p): spec.grayscale_p,
        v2.RandomApply([v2.GaussianBlur(13, spec.blur_sigma)], spec.blur_p): spec.blur_p,
        v2.RandomSolarize(128, spec.solarize_p): spec.solarize_p,
    }
    steps += [step for step, p in optional.items() if p]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def random_batch(batch: int, height: int, width: int) -> RawBatch:
    """Return smooth random frames in the memory layout of a store."""
    coarse = torch.rand(batch, 3, height // 8, width // 8)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    pixels = (255 * smooth).to(torch.uint8).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)[:, None]
    source_hw = torch.tensor([[height, width]] * batch)
    rows = torch.arange(batch)
    return RawBatch(0, rows, rows, {ClipSpec(): RawFrames(pixels, source_hw, torch.zeros(batch, 1))})


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def compare(spec: ViewSpec, raw: RawBatch, device: torch.device, repeats: int) -> list[float]:
    """Return median ms per view: ours on one thread, ours on all, torchvision on one (always on the CPU)."""
    augment = Augment((spec,), mean=MEAN, std=STD, seed=0, device=device, memory_format=torch.channels_last)
    placed = raw.clips[ClipSpec()]
    ready = replace(raw, clips={ClipSpec(): replace(placed, pixels=placed.pixels.to(device))})
    theirs, images = torchvision_pipeline(spec), list(placed.pixels[:, 0])
    num_threads = torch.get_num_threads()
    turns = [
        (1, lambda: augment(ready)),
        (num_threads, lambda: augment(ready)),
        (1, lambda: torch.stack([theirs(image) for image in images])),
    ]
    taken: list[list[float]] = [[], [], []]
    for _ in range(repeats + 1):
        for times, (threads, work) in zip(taken, turns, strict=True):
            torch.set_num_threads(threads)
            times.append(milliseconds(work, device) / len(images))
    torch.set_num_threads(num_threads)
    return [statistics.median(times[1:]) for times in taken]


def main() -> None:
    """Print one line per operation, view size and frame size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--sources", nargs="+", default=["128x128", "144x256"], help="height x width of the frames")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    print(f"batch {arguments.batch}, {device}; ms per view with 1 thread, and ours with {torch.get_num_threads()}")
    print(f"{'source':>9} {'view':>5}  {'operation':<18} {'torchvision':>12} {'ours':>7} {'ratio':>6} {'threads':>8}")
    for source in arguments.sources:
        height, width = map(int, source.split("x"))
        raw = random_batch(arguments.batch, height, width)
        for size in arguments.sizes:
            for name, spec in OPERATIONS.items():
                one, every, theirs = compare(replace(spec, size=size), raw, device, arguments.repeats)
                figures = f"{theirs:12.3f} {one:7.3f} {theirs / one:6.1f} {every:8.3f}"
                print(f"{source:>9} {size:>5}  {name:<18} {figures}", flush=True)
    drawing = {"seed": 0, "step": 0, "view": 0, "num_frames": 1, "position": raw.position}
    draws = [
        milliseconds(lambda: draw(WHOLE, source_hw=raw.clips[ClipSpec()].source_hw, **drawing), device)
        for _ in range(20)
    ]
    print(f"all draws of one view of {arguments.batch} samples: {statistics.median(draws):.2f} ms")


if __name__ == "__main__":
    main()
