"""Pretrain: put a run's parts together, start or resume it, say what it is about to do."""

from __future__ import annotations

import argparse
import contextlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DataParallel

from robossl.augment import Augment
from robossl.batch_norm import convert_split_batchnorm, convert_sync_batchnorm
from robossl.checkpoint import checkpoints, load_checkpoint, step_of
from robossl.config import as_plain, load, override
from robossl.data.clips import check_clips, moving_rows
from robossl.data.loader import Loader, ResidentFrames
from robossl.data.mixture import Mixture, Readable
from robossl.data.sampler import MixedSampler, Sampler, thin
from robossl.data.store import Store, open_store
from robossl.durable import locked
from robossl.encoder import Encoder, build_encoder, unused_weights
from robossl.errors import InputError
from robossl.health import HealthMonitor
from robossl.memory import keep_freed_memory
from robossl.method import Method
from robossl.metrics import Progress, Sink, open_sinks
from robossl.online import OnlineKnn
from robossl.optim import build_optimizer
from robossl.ranks import Ranks, any_rank, barrier, broadcast
from robossl.run import DataConfig, MixConfig, RunConfig, RunFolder
from robossl.teacher import MovingAverageBank, Queue
from robossl.train import Stopped, Trainer
from robossl.views import ViewSpec


def pretrain(config: RunConfig, *, out: Path, resume: bool = False) -> Path:
    """Train as `config` says into the run folder `out`, which is returned.

    Raises:
        InputError: configuration, data and run folder do not fit together.
        ResourceError: a checkpoint could not be written, or another run is writing to the folder.
        Stopped: SIGTERM or SIGINT came, and the run was saved.
    """
    with contextlib.closing(Ranks.join(device_name(config))) as ranks:
        trainer = build_trainer(config, ranks, out, resume=resume)
        with claimed(trainer, resume=resume):
            _train(trainer, restore(trainer) if resume else 0)
    return out


@contextlib.contextmanager
def claimed(trainer: Trainer, *, resume: bool) -> Iterator[None]:
    """The run folder is this run's while the block lasts: the main rank locks it and writes the configuration.

    Raises:
        InputError: it holds another run.
        ResourceError: another process is writing to it.
    """
    with contextlib.ExitStack() as held:
        if trainer.ranks.is_main:
            held.enter_context(locked(trainer.folder.path, "run"))
            trainer.folder.claim(trainer.config, resume=resume)
        barrier()
        yield


def _train(trainer: Trainer, start: int) -> None:
    out, stop = trainer.folder.path, trainer.config.train.steps
    with Progress(start=start, stop=stop, log=out / "log.txt" if trainer.ranks.is_main else None) as progress:
        progress.say(plan(trainer, start))
        sinks = _open_sinks(trainer, start)
        try:
            trainer.run(start=start, progress=progress, sinks=sinks)
        except Stopped as stopped:
            progress.say(str(stopped))
            raise
        finally:
            for sink in sinks:
                sink.close()
        progress.say(f"done; next: robossl evaluate {out} --store {trainer.config.data.store}, robossl export {out}")


def build_trainer(config: RunConfig, ranks: Ranks, out: Path, *, resume: bool) -> Trainer:
    """Put the parts together and refuse what does not fit; initial weights depend on the seed alone."""
    check_batch(config, ranks)
    check_warmup(config)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs 3 % of a step
    torch.backends.cudnn.benchmark = False
    stores = [open_store(path) for path in (config.data.store, *(part.store for part in config.data.mix))]
    torch.manual_seed(config.seed)
    method = config.method.build(build_encoder(config.encoder))
    specs = method.views()
    loader = build_loader(config, ranks, stores, specs)
    check_views(stores, specs)
    knn = OnlineKnn(stores[0], config.knn, device=ranks.device) if config.knn else None
    check_memories(method, config, loader)
    folder = RunFolder(out)
    if ranks.is_main:
        folder.check(config, resume=resume)

    method = place_batch_norm(method, config, ranks)
    memory_format = torch.channels_last if uses_channels_last(config, method) else torch.contiguous_format
    method = method.to(ranks.device).to(memory_format=memory_format).train()
    mean, std = config.encoder.mean, config.encoder.std
    optimizer = build_optimizer(config.optim, method, batch_size=config.train.batch_size)
    return Trainer(
        config=config,
        ranks=ranks,
        folder=folder,
        stores=stores,
        method=method,
        model=wrap(method, config, ranks),
        optimizer=optimizer,
        loader=loader,
        augment=Augment(specs, mean=mean, std=std, seed=config.seed, device=ranks.device, memory_format=memory_format),
        health=HealthMonitor(),
        knn=knn,
    )


def place_batch_norm(method: Method, config: RunConfig, ranks: Ranks) -> Method:
    """Give batch-norm the statistics that the method wants: of the global batch, or of groups of it."""
    groups = method.batch_norm_groups
    if groups is None:
        several = ranks.world_size > 1 and config.train.sync_batch_norm
        return convert_sync_batchnorm(method) if several else method
    if groups % ranks.world_size or config.train.batch_size % (groups * config.train.accumulate):
        raise InputError(
            f"{groups} groups of batch-norm do not divide over {ranks.world_size} ranks and batches of "
            f"{config.train.batch_size // config.train.accumulate}; choose method.batch_norm_groups so that they do"
        )
    return convert_split_batchnorm(method, groups=groups // ranks.world_size)


def build_loader(config: RunConfig, ranks: Ranks, stores: Sequence[Store], specs: tuple[ViewSpec, ...]) -> Loader:
    """This rank's share of every batch; held in memory where all that can be drawn fits."""
    data, batch_size = config.data, config.train.batch_size
    readable: Readable = Mixture(stores) if len(stores) > 1 else stores[0]
    clips = tuple(spec.clip for spec in specs)
    reaches = any(clip.has_time for clip in clips)  # beyond the anchors
    parts: list[DataConfig | MixConfig] = [data, *data.mix]
    pools, weights, drawn, first = [], [], [], 0
    for number, (store, part) in enumerate(zip(stores, parts, strict=True)):
        rows = store.rows(part.split)
        moving = moving_rows(store, rows) if reaches else rows
        if len(moving) or len(parts) == 1:  # of a mixture, stores of images give no clips
            check_clips(store, rows, clips)
            anchors = moving if part.frames_per_s is None else thin(store, moving, part.frames_per_s)
            share, over = batch_size if len(parts) == 1 else 1, data.epoch_over
            own = first + anchors
            pools.append(Sampler(readable, own, seed=config.seed, batch_size=share, epoch_over=over, pool=number))
            weights.append(part.weight)
            drawn.append(first + (moving if reaches else anchors))
        first += store.num_frames
    if not pools:
        check_clips(stores[0], stores[0].rows(data.split), clips)
    every = np.concatenate(drawn)
    fits = ResidentFrames.num_bytes(readable, every) <= data.resident_gib * 2**30
    share = batch_size // ranks.world_size
    return Loader(
        store=readable,
        sampler=pools[0] if len(parts) == 1 else MixedSampler(tuple(pools), tuple(weights), batch_size),
        clips=clips,
        local=slice(ranks.rank * share, (ranks.rank + 1) * share),
        device=ranks.device,
        num_workers=data.num_workers,
        resident_rows=every if fits else None,
    )


def check_views(stores: Sequence[Store], specs: tuple[ViewSpec, ...]) -> None:
    """Refuse views larger than every frame: all of them would be enlarged."""
    largest = max(int(store.frame_hw.min(axis=1).max()) for store in stores)
    size = max(spec.size for spec in specs)
    if size > largest:
        raise InputError(
            f"views of {size} px from frames whose short side is at most {largest}: every view would be enlarged; "
            f"set the view sizes of the method to {largest} or less, or ingest with a larger --short-side"
        )


def wrap(method: Method, config: RunConfig, ranks: Ranks) -> nn.Module:
    """The method as the loop calls it: compiled when asked, averaged over ranks when there are several."""
    model: nn.Module = method
    if ranks.world_size > 1:
        for encoder in [module for module in method.modules() if isinstance(module, Encoder)]:
            for weight in unused_weights(encoder):
                weight.requires_grad_(False)  # DDP would wait for its gradient
        if "forward_sync_buffers" in inspect.signature(DataParallel.__init__).parameters:  # from torch 2.15 on
            model = DataParallel(method, forward_sync_buffers=False)
        else:
            model = DataParallel(method, broadcast_buffers=False)
    if config.train.compile:
        model.compile()
    return model


def device_name(config: RunConfig) -> str:
    """The configured device, or the best there is."""
    if config.train.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.train.device


def check_batch(config: RunConfig, ranks: Ranks) -> None:
    """Refuse a batch that does not divide over ranks and micro-batches."""
    parts = ranks.world_size * config.train.accumulate
    if config.train.batch_size % parts:
        raise InputError(
            f"train.batch_size {config.train.batch_size} does not divide by {ranks.world_size} ranks x "
            f"{config.train.accumulate} accumulation steps; choose a multiple of {parts}"
        )


def check_warmup(config: RunConfig) -> None:
    """Refuse a warm-up that the run ends in, as when a recipe is shortened: the rate of its peak would never act."""
    if config.optim.warmup_steps >= config.train.steps:
        raise InputError(
            f"optim.warmup_steps {config.optim.warmup_steps} must be fewer than train.steps {config.train.steps}; "
            "a tenth of them or less is usual"
        )


def check_memories(method: Method, config: RunConfig, loader: Loader) -> None:
    """Refuse a queue that a batch does not fit into, and a bank without a row for every frame."""
    for module in method.modules():
        if isinstance(module, Queue):
            module.check_batch(config.train.batch_size // config.train.accumulate)
        if isinstance(module, MovingAverageBank):
            module.check_sample(int(loader.sampler.rows.max()))


def uses_channels_last(config: RunConfig, method: Method) -> bool:
    """What the configuration says, or else whether the backbone is convolutional (channels_last slows a ViT)."""
    if config.train.channels_last is not None:
        return config.train.channels_last
    return sum(isinstance(module, nn.Conv2d) for module in method.encoder.modules()) > 1


def restore(trainer: Trainer) -> int:
    """Load the main rank's newest checkpoint on every rank, if there is one, and return the steps done.

    Raises:
        InputError: a rank does not see that checkpoint, or a store is not what it was.
    """
    found = {step_of(path): path for path in checkpoints(trainer.folder.checkpoints)}
    start = int(broadcast([max(found, default=0)])[0])
    if any_rank(start > 0 and start not in found):
        raise InputError(
            f"the checkpoint of step {start} in {trainer.folder.path} is not there for every rank; "
            "--out must be a folder that all nodes see"
        )
    if start:
        _, state = load_checkpoint(found[start], method=trainer.method, optimizer=trainer.optimizer)
        check_stores(trainer, state, start)
        trainer.health.load_state_dict(state["health"])
    barrier()  # nobody writes before all have read
    return start


def check_stores(trainer: Trainer, state: dict[str, Any], step: int) -> None:
    """Refuse to go on with other frames than the checkpoint's; those of earlier versions do not say which."""
    hashes = [store.content_hash for store in trainer.stores]
    paths = [trainer.config.data.store, *(part.store for part in trainer.config.data.mix)]
    for path, was, now in zip(paths, state.get("stores", hashes), hashes, strict=True):
        if was != now:
            raise InputError(
                f"the store {path} had content {was} at step {step} and has {now} now; "
                "put the old one back, or start a new run with another --out"
            )


def plan(trainer: Trainer, start: int) -> str:
    """One line on what is about to happen."""
    config, loader = trainer.config, trainer.loader
    frames, steps = len(loader.sampler.rows), config.train.steps
    epochs = steps / loader.sampler.steps_per_epoch
    resident = loader.resident_rows is not None
    how = "decoded first and held in memory" if resident else f"decoded by {loader.num_workers} workers"
    weights = sum(weight.numel() for weight in trainer.method.encoder.parameters())
    return (
        f"pretrain {as_plain(config)['method']['name']} on {config.encoder.backbone} ({weights / 1e6:.1f} M weights): "
        f"{frames} frames, {how}; steps {start} to {steps} of batch {config.train.batch_size} ({epochs:.1f} epochs) on "
        f"{trainer.ranks.world_size} x {trainer.ranks.device.type}; into {trainer.folder.path}"
    )


def _open_sinks(trainer: Trainer, start: int) -> list[Sink]:
    if not trainer.ranks.is_main:
        return []
    trainer.folder.truncate_metrics(start)
    config = trainer.config
    return open_sinks(trainer.folder.path, config.train.sinks, start=start, config=as_plain(config))


def command(argv: Sequence[str]) -> int:
    """`robossl pretrain CONFIG [--out RUN] [--resume] [--train.steps 1000 ...]`."""
    parser = argparse.ArgumentParser(
        prog="robossl pretrain",
        description="Pretrain an encoder. Any value of the configuration can be overridden: --train.steps 1000; "
        "`robossl pretrain CONFIG --help` lists them all.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, nargs="?", help="a yaml of configs/, or RUN/config.yaml to resume")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME_OF_CONFIG)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run folder")
    known, rest = parser.parse_known_args(list(argv))
    if known.config is None:
        parser.print_help()
        return 0 if {"-h", "--help"} & set(rest) else 2
    config = override(load(known.config, RunConfig), rest, prog=f"robossl pretrain {known.config}")
    out = known.out or Path("runs") / known.config.stem
    if known.resume and known.out is None and known.config.name == "config.yaml":
        out = known.config.parent
    keep_freed_memory()
    try:
        pretrain(config, out=out, resume=known.resume)
    except Stopped:
        return 143  # 128 + SIGTERM: not done, saved
    return 0
