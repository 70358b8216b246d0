"""Choose the precision and the number of CPU threads with which this machine trains fastest, by a short measurement."""

from __future__ import annotations

import copy
import os
import time
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import torch
from torch import nn

from robossl.common.cpus import num_cpus
from robossl.common.ranks import Ranks, broadcast
from robossl.methods.base import Method
from robossl.training.run_config import Precision, RunConfig

# Measure for this time, or until each setting has run two steps, whichever is longer.
MEASURED_SECONDS = 1.5
# Number of frames in a measured step. With more frames, steps of a large backbone on a CPU would take too long.
MEASURED_FRAMES = 16
# A setting is preferred to a simpler one (fp32, fewer threads) only if it is faster by more than this factor.
CLEARLY_FASTER = 1.1


class Setting(NamedTuple):
    """A precision and a number of threads."""

    precision: Precision
    threads: int

    def describe(self) -> str:
        """Return the setting in words, such as `bf16 on 2 threads`."""
        return f"{self.precision} on {self.threads} thread{'s' * (self.threads > 1)}"


def settle(
    config: RunConfig, method: Method, ranks: Ranks, *, channels_last: bool
) -> tuple[RunConfig, tuple[str, ...]]:
    """Return the configuration with a fixed precision and number of threads, and a remark on how they were chosen.

    Values that the configuration gives are kept. All ranks get the values of the main rank.

    Args:
        config: The configuration; `train.precision` may be "auto" and `train.threads` None.
        method: The method on the CPU, where it was built.
        ranks: The ranks of the run.
        channels_last: Whether the run uses torch's memory format channels_last.
    """
    train = config.train
    if ranks.device.type == "cuda":
        fastest: Precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        chosen = fastest if train.precision == "auto" else train.precision
        return replace(config, train=replace(train, precision=chosen, threads=train.threads or 0)), ()
    settings = candidates(config)
    remarks: tuple[str, ...] = ()
    best = settings[0]
    if len(settings) > 1:
        rates = dict.fromkeys(settings, 1.0)
        if ranks.is_main:
            rates = measure(method, config, settings, channels_last=channels_last)
        best = choose(rates)
        others = ", ".join(f"{each.describe()} {rate:.0f}" for each, rate in rates.items() if each != best)
        remarks = (f"measured here: {best.describe()}, {rates[best]:.0f} frames/s through the backbone ({others})",)
    is_bf16, threads = broadcast([best.precision == "bf16", best.threads])
    return replace(config, train=replace(train, precision="bf16" if is_bf16 else "fp32", threads=int(threads))), remarks


def candidates(config: RunConfig) -> list[Setting]:
    """List the settings to choose from: those that the configuration and OMP_NUM_THREADS leave open.

    The numbers of threads to try are the powers of two up to the number of CPUs, and the number of CPUs itself.
    """
    train = config.train
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if train.precision == "auto" else (train.precision,)
    if train.threads is not None:
        threads = [train.threads]
    elif "OMP_NUM_THREADS" in os.environ:
        threads = [torch.get_num_threads()]
    else:
        cpus = num_cpus()
        threads = sorted({2**power for power in range(cpus.bit_length()) if 2**power <= cpus} | {cpus})
    return [Setting(precision, number) for number, precision in product(threads, precisions)]


def choose(rates: dict[Setting, float]) -> Setting:
    """Return the fastest setting, or a simpler one (fp32, fewer threads) that is nearly as fast."""
    best = max(rates.values())
    return next(setting for setting, rate in rates.items() if rate * CLEARLY_FASTER >= best)


def measure(method: Method, config: RunConfig, settings: list[Setting], *, channels_last: bool) -> dict[Setting, float]:
    """Measure frames per second of the encoder, forward and backward, with each setting.

    The settings take turns, so that another busy process slows down all of them. A setting that reaches
    at most half of the best speed is dropped after two steps. Weights, batch statistics and random generators do not
    change.
    """
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    # The method's encoder may be a teacher, which gets no gradients.
    encoder: nn.Module = copy.deepcopy(method.encoder).to(memory_format=memory_format).train().requires_grad_()
    num_frames = min(MEASURED_FRAMES, config.train.batch_size // config.train.accumulate)
    size = max(method.encoder_sizes())
    frames = torch.rand(num_frames, 3, size, size, generator=torch.Generator().manual_seed(0))
    frames = frames.to(memory_format=memory_format)
    before, seconds, open_settings = torch.get_num_threads(), dict.fromkeys(settings, float("inf")), list(settings)
    started, rounds = time.perf_counter(), 0
    with torch.random.fork_rng(devices=[]):
        while rounds < 2 or time.perf_counter() - started < MEASURED_SECONDS:
            for setting in open_settings:
                seconds[setting] = min(seconds[setting], _time_step(encoder, frames, setting))
            rounds += 1
            if rounds >= 2:
                best = min(seconds.values())
                open_settings = [setting for setting in open_settings if seconds[setting] < 2 * best]
    torch.set_num_threads(before)
    return {setting: len(frames) / each for setting, each in seconds.items()}


def _time_step(encoder: nn.Module, frames: torch.Tensor, setting: Setting) -> float:
    """Return the seconds of a forward and backward pass."""
    torch.set_num_threads(setting.threads or torch.get_num_threads())
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16"):
        pooled = encoder(frames).pooled
    pooled.float().square().mean().backward()
    encoder.zero_grad(set_to_none=True)
    return time.perf_counter() - started
