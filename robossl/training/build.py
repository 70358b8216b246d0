"""Build a run from its configuration. Parts that do not fit are refused before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from robossl.augment.pipeline import Augment
from robossl.common.ranks import Ranks
from robossl.data.clips import check_clips, check_discrete, moving_rows
from robossl.data.loader import BatchLoader, ResidentFrames
from robossl.data.mixture import FrameStore, Mixture
from robossl.data.sampler import MixedSampler, Sampler, thin_rows
from robossl.data.store import Store, open_store
from robossl.encoders.encoder import build_encoder
from robossl.errors import InputError
from robossl.measure.collapse import CollapseMonitor
from robossl.methods.base import Method
from robossl.methods.parts.teacher import MovingAverageBank, Queue
from robossl.training.adapt import adapt, describe_lengthening
from robossl.training.compiling import check_compiler, compile_encoders
from robossl.training.logging import check_sinks
from robossl.training.method_checks import check_method, read_views
from robossl.training.online_knn import OnlineKnn
from robossl.training.optim import build_optimizer
from robossl.training.pace import settle
from robossl.training.parallel import place_batch_norm, shard_weights, shards, wrap_model
from robossl.training.run_config import RunConfig, as_saved, load_saved
from robossl.training.run_folder import RunFolder
from robossl.training.run_paths import FILE
from robossl.training.trainer import Trainer
from robossl.training.view_sizes import check_views, shrink_views
from robossl.training.warm_heads import check_heads
from robossl.views import ViewSpec


def build_trainer(config: RunConfig, ranks: Ranks, out: Path, *, resume: bool) -> Trainer:
    """Build the trainer of a run, and refuse parts of the configuration that do not fit.

    Random initial weights depend only on the seed.
    """
    check_batch(config, ranks)
    check_compile(config, ranks)
    torch.use_deterministic_algorithms(True)
    # Filling uninitialised memory would take 3 % of a step's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    stores = [open_store(part.store) for part in config.data.parts]
    config, remarks = adapt(config, stores)
    torch.manual_seed(config.seed)
    method = check_method(config.method.build(build_encoder(config.encoder)), config.method)
    specs = read_views(method)
    small_specs = shrink_views(specs, config, method)
    loader = build_loader(config, ranks, stores, specs)
    check_views(method, stores, specs)
    for store, part in zip(stores, config.data.parts, strict=True):
        check_discrete(store, store.rows(part.split), method.discrete_columns())
    if config.optim.warm_head_steps:
        check_heads(method)
    if config.knn and config.knn.output == "cls" and not method.encoder.has_cls:
        raise InputError(f"knn.output is cls, but {config.encoder.backbone} has no class token; set it to pooled")
    knn = OnlineKnn(stores[0], config.knn, device=ranks.device) if config.knn else None
    check_memories(method, config, loader)
    folder = RunFolder(out)
    if resume and (out / FILE).exists():
        config = as_saved(config, load_saved(out / FILE))
    if ranks.is_main:
        check_sinks(config.train.sinks)
        folder.check(config, resume=resume, may_lengthen=True)
        remarks += describe_lengthening(config, folder)
    channels_last = uses_channels_last(config, method)
    config, chosen = settle(config, method, ranks, channels_last=channels_last)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)

    method = place_batch_norm(method, config, ranks)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    # Sharded weights are contiguous. Convolutions then follow the memory format of their input.
    weight_format = torch.contiguous_format if shards(config, ranks) else memory_format
    method = method.to(ranks.device).to(memory_format=weight_format).train()
    if shards(config, ranks):  # before the optimizer, because this makes new weights
        shard_weights(method, ranks)
    optimizer = build_optimizer(config.optim, method, batch_size=config.train.batch_size)
    if config.train.compile:
        compile_encoders(method)
    return Trainer(
        config=config,
        ranks=ranks,
        folder=folder,
        stores=stores,
        method=method,
        model=wrap_model(method, config, ranks),
        optimizer=optimizer,
        loader=loader,
        augment=augment_for(specs, config, ranks, memory_format),
        small_augment=augment_for(small_specs, config, ranks, memory_format) if small_specs else None,
        collapse=CollapseMonitor(),
        knn=knn,
        remarks=remarks + chosen,
    )


def check_batch(config: RunConfig, ranks: Ranks) -> None:
    """Refuse a batch that cannot be divided equally among ranks and micro-batches, and micro-batches of one frame."""
    parts = ranks.world_size * config.train.accumulate
    if config.train.batch_size % parts:
        raise InputError(
            f"train.batch_size {config.train.batch_size} does not divide by {ranks.world_size} ranks x "
            f"{config.train.accumulate} accumulation steps; choose a multiple of {parts}"
        )
    if config.train.batch_size == config.train.accumulate:
        raise InputError(
            f"train.batch_size {config.train.batch_size} in {config.train.accumulate} accumulation steps leaves one "
            "frame at a time, with no other frame to compare it to; raise the batch or lower train.accumulate"
        )


def augment_for(
    specs: tuple[ViewSpec, ...], config: RunConfig, ranks: Ranks, memory_format: torch.memory_format
) -> Augment:
    """Return the augmentation that makes views with these specifications."""
    return Augment(
        specs,
        mean=config.encoder.mean,
        std=config.encoder.std,
        seed=config.seed,
        device=ranks.device,
        memory_format=memory_format,
    )


def check_compile(config: RunConfig, ranks: Ranks) -> None:
    """Refuse to compile sharded encoders, or without a compiler."""
    if config.train.compile and config.train.parallel == "fsdp":
        raise InputError("train.compile does not go with train.parallel fsdp; choose ddp, or leave out --train.compile")
    if config.train.compile and ranks.device.type == "cpu":
        check_compiler()


def check_memories(method: Method, config: RunConfig, loader: BatchLoader) -> None:
    """Refuse a memory of the method (outputs that it keeps from earlier batches) that is too small.

    A queue must be at least as large as a batch. A moving-average bank needs a row for every training frame.
    """
    for module in method.modules():
        if isinstance(module, Queue):
            module.check_batch(config.train.batch_size)
        if isinstance(module, MovingAverageBank):
            module.check_sample(int(loader.sampler.rows.max()))


def build_loader(config: RunConfig, ranks: Ranks, stores: Sequence[Store], specs: tuple[ViewSpec, ...]) -> BatchLoader:
    """Return the loader that reads this rank's share of every batch.

    If all frames of the training data, decoded, fit into `data.resident_gib`, the loader keeps them in memory.
    """
    data, batch_size = config.data, config.train.batch_size
    readable: FrameStore = Mixture(stores) if len(stores) > 1 else stores[0]
    clips = tuple(spec.clip for spec in specs)
    reaches = any(clip.has_time for clip in clips)  # whether clips have frames besides the sampled (anchor) frame
    parts = data.parts
    anchors, weights, drawn, first = {}, [], [], 0
    for number, (store, part) in enumerate(zip(stores, parts, strict=True)):
        rows = store.rows(part.split)
        moving = moving_rows(store, rows) if reaches else rows
        # In a mixture of stores, a store that has no rows for clips is left out.
        if len(moving) or len(parts) == 1:
            check_clips(store, rows, clips)
            anchors[number] = first + (
                moving if part.frames_per_s is None else thin_rows(store, moving, part.frames_per_s)
            )
            weights.append(part.weight)
            drawn.append(first + moving if reaches else anchors[number])
        first += store.num_frames
    if not anchors:
        check_clips(stores[0], stores[0].rows(data.split), clips)
    share, over = batch_size if len(parts) == 1 else 1, data.epoch_over
    pools = [
        Sampler(readable, own, seed=config.seed, batch_size=share, epoch_over=over, pool=number)
        for number, own in anchors.items()
    ]
    every = np.concatenate(drawn)
    fits = ResidentFrames.num_bytes(readable, every) <= data.resident_gib * 2**30
    share = batch_size // ranks.world_size
    return BatchLoader(
        store=readable,
        sampler=pools[0] if len(parts) == 1 else MixedSampler(tuple(pools), tuple(weights), batch_size),
        clips=clips,
        local=slice(ranks.rank * share, (ranks.rank + 1) * share),
        device=ranks.device,
        num_workers=data.num_workers,
        resident_rows=every if fits else None,
    )


def uses_channels_last(config: RunConfig, method: Method) -> bool:
    """Return whether to use torch's memory format channels_last.

    If the configuration does not say, the answer is yes for convolutional backbones. It is no for ViTs, which this
    format slows down.
    """
    if config.train.channels_last is not None:
        return config.train.channels_last
    return sum(isinstance(module, nn.Conv2d) for module in method.encoder.modules()) > 1


def device_name(config: RunConfig) -> str:
    """Return the configured device; for `auto`, return "cuda" if torch finds a GPU, else "cpu".

    Raises:
        InputError: the device is cuda, and torch finds no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if config.train.device == "auto":
        return "cuda" if has_gpu else "cpu"
    if config.train.device == "cuda" and not has_gpu:
        raise InputError("train.device is cuda, but torch finds no GPU here; choose cpu or auto")
    return config.train.device
