"""Pretrain: build a run, start or resume it, and print its plan."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from robossl.common.atomic_io import locked
from robossl.common.config import as_plain, load, with_changes
from robossl.common.paths import StrPath
from robossl.common.progress import Progress
from robossl.common.ranks import Ranks, any_rank, barrier, broadcast
from robossl.errors import InputError, RunInterrupted
from robossl.exporting.triton_layout import allowed_name
from robossl.training.build import build_trainer, device_name
from robossl.training.checkpoint import checkpoints, load_checkpoint, step_of
from robossl.training.logging import Sink, open_sinks
from robossl.training.micro_batches import describe_parts
from robossl.training.next_steps import next_steps
from robossl.training.recipes import find_config
from robossl.training.run_config import RunConfig
from robossl.training.run_paths import resolve
from robossl.training.runs import Run
from robossl.training.trainer import Trainer


def pretrain(
    config: RunConfig | StrPath,
    *,
    store: StrPath | None = None,
    out: StrPath | None = None,
    resume: bool = False,
    changes: Mapping[str, object] | None = None,
) -> Run:
    """Pretrain an encoder on a store of frames; the run folder gets the encoder, checkpoints, metrics and a log.

    Ctrl-C and SIGTERM save the run and raise `RunInterrupted`. With `resume`, such a run goes on. It ends with the same
    weights, bit for bit, as a run without interruption. Afterwards, torch has its former settings (determinism, random
    generator) again.

    Args:
        config: A recipe by its name ("simsiam_resnet18_video"), a YAML file, a `RunConfig`, or with `resume` a run.
        store: The store to train on; by default the one that the configuration names.
        out: The run folder; by default runs/NAME of the recipe or file, runs/METHOD_BACKBONE for a `RunConfig`, and the
            run itself with `resume`.
        resume: Go on from the newest checkpoint of the run folder.
        changes: New values by dotted key, such as `{"train.steps": 100, "encoder.backbone": "resnet50", "knn": None}`.

    Raises:
        InputError: configuration, data and run folder do not fit together, or the loss is no longer finite.
        ResourceError: a checkpoint could not be written, or another run is writing to the folder.
        RunInterrupted: SIGTERM or SIGINT came, and the run was saved.

    Example:
        >>> import robossl
        >>> tiny = {"train.steps": 1, "train.batch_size": 4, "encoder.backbone": "test_resnet", "method.view.size": 32}
        >>> run = robossl.pretrain("simsiam_resnet18_video", store="stores/clips", out="runs/new", changes=tiny)
        >>> robossl.load_encoder(run).card.name
        'new'
    """
    if isinstance(config, RunConfig):
        folder = Path("runs") / _default_name(config) if out is None else Path(out)
    else:
        yaml, folder = resolve(find_config(Path(config)), out=None if out is None else Path(out), resume=resume)
        config = load(yaml, RunConfig, is_saved=resume)
    config = with_changes(config, {**(changes or {}), **({} if store is None else {"data.store": os.fspath(store)})})
    with kept_settings(), contextlib.closing(Ranks.join(device_name(config))) as ranks:
        trainer = build_trainer(config, ranks, folder, resume=resume)
        with claimed(trainer, resume=resume):
            _train(trainer, restore(trainer) if resume else 0)
    return Run(folder)


def _default_name(config: RunConfig) -> str:
    return allowed_name(f"{as_plain(config)['method']['name']}_{config.encoder.backbone}")


@contextlib.contextmanager
def kept_settings() -> Iterator[None]:
    """Restore torch's settings, threads and the state of its random generator after a `with` block."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling: Any = torch.utils.deterministic
    fill, benchmark = filling.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        filling.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)


@contextlib.contextmanager
def claimed(trainer: Trainer, *, resume: bool) -> Iterator[None]:
    """Keep the run folder locked during a `with` block; the main rank takes the lock and writes the configuration.

    Raises:
        InputError: the folder holds another run.
        ResourceError: another process is writing to the folder.
    """
    with contextlib.ExitStack() as held:
        if trainer.ranks.is_main:
            held.enter_context(locked(trainer.folder.path, "run"))
            trainer.folder.claim(trainer.config, resume=resume, may_lengthen=True)
        barrier()
        yield


def _train(trainer: Trainer, start: int) -> None:
    out, stop, knn = trainer.folder.path, trainer.config.train.steps, trainer.config.knn
    is_main = trainer.ranks.is_main
    # A short progress bar leaves room for the numbers of a step in 80 columns.
    with Progress(stderr=True, log=out / "log.txt" if is_main else None, quiet=not is_main, bar_width=12) as progress:
        progress.say(plan(trainer, start))
        for remark in trainer.remarks:
            progress.say(remark)
        if start == stop:
            progress.say(f"all {stop} steps are done; add --train.steps MORE to lengthen the run")
        sinks = _open_sinks(trainer, start)
        try:
            trainer.run(start=start, progress=progress, sinks=sinks)
        except RunInterrupted as stopped:
            progress.say(str(stopped))
            raise
        finally:
            for sink in sinks:
                sink.close()
        if trainer.ranks.is_main:
            progress.say("done; next:")
            for line in next_steps(out, trainer.stores[0], label=knn.label if knn else ""):
                progress.say(f"  {line}")


def restore(trainer: Trainer) -> int:
    """Load the main rank's newest checkpoint on every rank; return its step, or 0 if there is no checkpoint.

    Raises:
        InputError: a rank does not see that checkpoint, there is an encoder but no checkpoint, or the training frames
            of a store have changed.
    """
    found = {step_of(path): path for path in checkpoints(trainer.folder.checkpoints)}
    start = int(broadcast([max(found, default=0)])[0])
    if any_rank(start > 0 and start not in found):
        raise InputError(
            f"the checkpoint of step {start} in {trainer.folder.path} is not there for every rank; "
            "--out must be a folder that all nodes see"
        )
    if any_rank(start == 0 and (trainer.folder.path / "encoder").exists()):
        raise InputError(
            f"nothing to resume in {trainer.folder.path}: an encoder but no checkpoint, and training from step 0 would "
            "overwrite it; put checkpoints/ back or start a new run with another --out"
        )
    if start:
        _, state = load_checkpoint(found[start], method=trainer.method, optimizer=trainer.optimizer)
        check_frames(trainer, state, start)
        trainer.collapse.load_state_dict(state["health"])
    barrier()  # no rank may write before all ranks have read the checkpoint
    return start


def check_frames(trainer: Trainer, state: dict[str, Any], step: int) -> None:
    """Check that the training frames are those that the checkpoint was trained on.

    Labels and the splits that are not trained on may have changed. Checkpoints of earlier versions have a hash of whole
    stores only, or no hash; without a hash, nothing is checked.

    Raises:
        InputError: the training frames of a store have changed.
    """
    was, now = state.get("stores", []), [store.content_hash for store in trainer.stores]
    frames_were, frames = state.get("frames", [None] * len(was)), trainer.frames_hashes()
    for number, part in enumerate(trainer.config.data.parts if was else ()):
        if was[number] != now[number] and frames_were[number] != frames[number]:
            raise InputError(
                f"the store {part.store} had content {was[number]} at step {step} and has {now[number]} now, with "
                "other frames to train on; put the old one back, or start a new run with another --out"
            )


def plan(trainer: Trainer, start: int) -> str:
    """Describe in one line how the run will train."""
    config, loader = trainer.config, trainer.loader
    frames, steps = len(loader.sampler.rows), config.train.steps
    epochs = steps / loader.sampler.steps_per_epoch
    resident = loader.resident_rows is not None
    how = "decoded first and held in memory" if resident else f"decoded by {loader.num_workers} workers"
    of = ", ".join(str(store.path) for store in trainer.stores)
    unseen = [store.path for i, store in enumerate(trainer.stores) if i not in loader.sampler.drawn_from]
    but = f" (none of {', '.join(map(str, unseen))}: it has no video)" if unseen else ""
    parts = describe_parts(trainer.method, batch_size=config.train.batch_size, parts=config.train.accumulate)
    weights = sum(weight.numel() for weight in trainer.method.encoder.parameters())
    return (
        f"pretrain {as_plain(config)['method']['name']} on {config.encoder.backbone} ({weights / 1e6:.1f} M weights): "
        f"{frames} frames of {of}{but}, {how}; steps {start} to {steps} of batch {config.train.batch_size}{parts} "
        f"({epochs:.1f} epochs over {config.data.epoch_over}) "
        f"on {trainer.ranks.world_size} x {trainer.ranks.device.type} in {config.train.precision}; "
        f"into {trainer.folder.path}"
    )


def _open_sinks(trainer: Trainer, start: int) -> list[Sink]:
    if not trainer.ranks.is_main:
        return []
    trainer.folder.truncate_metrics(start)
    config = trainer.config
    return open_sinks(trainer.folder.path, config.train.sinks, start=start, config=as_plain(config))
