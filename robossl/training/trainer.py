"""The training loop, the same for every method.

All random numbers depend only on seed, step and rank, so a resumed run has the same results as an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor, nn

from robossl.augment.pipeline import Augment
from robossl.common.config import as_plain, config_hash
from robossl.common.progress import Progress
from robossl.common.ranks import Ranks, all_reduce_mean, any_rank, barrier, gather
from robossl.common.sharding import is_sharded, own_part, whole
from robossl.data.loader import BatchLoader
from robossl.data.store import Store
from robossl.encoders.cards import data_before, teachers_before
from robossl.encoders.encoder import save_encoder
from robossl.errors import InputError, RunInterrupted
from robossl.measure.collapse import CollapseMonitor
from robossl.methods.base import Loss, Method
from robossl.methods.parts.batch_norm import raise_small_batch
from robossl.training.checkpoint import checkpoints, save_checkpoint
from robossl.training.compiling import describe_compiling
from robossl.training.logging import Sink, describe_step
from robossl.training.method_checks import check_gradient
from robossl.training.micro_batches import accumulate, split
from robossl.training.online_knn import OnlineKnn
from robossl.training.optim import clip_gradients, set_rates, start_momentum
from robossl.training.run_config import RunConfig
from robossl.training.run_folder import RunFolder
from robossl.training.warm_heads import drop_encoder_gradients, hold_encoders
from robossl.views import Batch


@dataclass(slots=True)
class Trainer:
    """The parts of a run on one rank, and the loop over its steps."""

    config: RunConfig
    ranks: Ranks
    folder: RunFolder
    stores: list[Store]  # stores of the training frames; online kNN uses the first store
    method: Method
    model: nn.Module  # the method, wrapped or sharded if there are several ranks
    optimizer: torch.optim.Optimizer
    loader: BatchLoader
    augment: Augment
    small_augment: Augment | None  # makes the smaller views of the first steps, if the configuration wants them
    collapse: CollapseMonitor
    knn: OnlineKnn | None
    remarks: tuple[str, ...] = ()  # changes to the recipe, printed when the run starts

    def run(self, *, start: int, progress: Progress, sinks: list[Sink]) -> None:
        """Train from step `start` to the last step of the configuration.

        Raises:
            InputError: the loss or the weights are no longer finite, or the encoder gets no gradient in the first step.
            RunInterrupted: a signal came; the run was saved.
        """
        config, steps = self.config.train, self.config.train.steps
        progress.show("pretrain", start, steps, note="")
        if start == steps:
            # Write the encoder again, because the run may have been killed between its last checkpoint and its encoder.
            self.write_encoder(start)
        logged, logged_at = start, time.perf_counter()
        with stop_signals() as signals, contextlib.closing(self.loader.batches(start=start, stop=steps)) as batches:
            for step, raw in enumerate(batches, start=start):
                lr = set_rates(self.optimizer, self.config.optim, step=step, steps=steps, batch_size=config.batch_size)
                began = time.perf_counter()
                loss = self.step(step, self.augment_at(step)(raw))
                if step == start and config.compile:
                    progress.say(describe_compiling(time.perf_counter() - began))
                if step == max(start, self.config.optim.warm_head_steps):
                    check_gradient(self.method)
                done, is_last = step + 1, step + 1 == steps

                values: dict[str, float] = {}
                if done % config.log_every == 0 or is_last:
                    values = self.scalars(loss, lr)  # this waits for the GPU, so read the clock after it
                    values["samples_per_s"] = (done - logged) * config.batch_size / (time.perf_counter() - logged_at)
                    note = ("" if is_last else "{left} left  ") + describe_step(values)
                    line = "step {done}/{total}  " + note
                    progress.show("pretrain", done, steps, note=note, line=line, line_now=is_last or logged == start)
                    logged, logged_at = done, time.perf_counter()
                values |= self.checks(done, loss, progress)
                for sink in sinks if values else []:
                    sink.write(done, values)

                interrupted = any_rank(bool(signals))
                if interrupted or done % config.checkpoint_every == 0 or is_last:
                    self.check_finite(done, loss)
                    self.save(done)
                if interrupted:
                    command = shlex.join(["robossl", "pretrain", str(self.folder.path), "--resume"])
                    raise RunInterrupted(f"stopped at step {done} and saved; go on with --resume: {command}")

    def augment_at(self, step: int) -> Augment:
        """Return the augmentation of a step, which makes smaller views in the first steps if configured."""
        is_small = step < self.config.train.small_views_share * self.config.train.steps
        return self.small_augment if self.small_augment and is_small else self.augment

    def step(self, step: int, batch: Batch) -> Loss:
        """Update the weights with one batch; return its loss, with the outputs of the last micro-batch."""
        config, warm_head_steps = self.config.train, self.config.optim.warm_head_steps
        if step < warm_head_steps:
            hold_encoders(self.method)
        elif step == warm_head_steps > 0:
            self.method.train()
        # Random numbers in the model, such as those of drop path, depend on (seed, step, rank).
        torch.manual_seed((self.config.seed * 1_000_003 + step) * 4099 + self.ranks.rank)
        self.method.before_step(step, config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        # `accumulate` runs the forward and backward pass of each micro-batch and adds up the gradients.
        loss = accumulate(self.method, self.model, split(batch, config.accumulate), self._forward_context)
        self.method.after_backward()
        if step < warm_head_steps:
            drop_encoder_gradients(self.method)
        clip_gradients(self.method, self.config.optim)
        start_momentum(self.optimizer)
        self.optimizer.step()
        self.method.after_step((step + 1) / config.steps)
        return loss

    @contextlib.contextmanager
    def _forward_context(self) -> Iterator[None]:
        """Set the precision of a forward pass; explain the error if a batch is too small for batch-norm."""
        config = self.config.train
        with (
            torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=config.precision == "bf16"),
            raise_small_batch(config.batch_size),
        ):
            yield

    def scalars(self, loss: Loss, lr: float) -> dict[str, float]:
        """Return the loss and the metrics, averaged over ranks, and the learning rate.

        Raises:
            InputError: the loss is not finite.
        """
        names = ["loss", *loss.metrics]
        mean = all_reduce_mean(torch.stack([loss.value.detach().float(), *(v.float() for v in loss.metrics.values())]))
        values = dict(zip(names, mean.tolist(), strict=True)) | {"lr": lr}
        if not math.isfinite(values["loss"]):
            raise self._diverged("the loss is not finite")
        return values

    def checks(self, done: int, loss: Loss, progress: Progress) -> dict[str, float]:
        """Check for collapse and run online kNN, each at its interval; return the scalars that they measured."""
        values: dict[str, float] = {}
        if done % self.config.train.health_every == 0:
            values, warning = self.collapse.check(tuple(gather(out) for out in loss.outputs))
            if warning:
                progress.say(f"step {done}: {warning}")
        # A sharded encoder needs all ranks, which then find the same.
        if (
            self.knn
            and (self.ranks.is_main or is_sharded(self.method))
            and (done % self.knn.config.every == 0 or done == self.config.train.steps)
        ):
            values |= (scored := self.knn(self.method.encoder))
            progress.say(f"step {done}: {self.knn.describe(scored)}")
        return values

    def check_finite(self, done: int, loss: Loss) -> None:
        """Refuse to save a run that diverged; if it diverged on one rank, all ranks raise the error.

        Raises:
            InputError: the loss, the weights or the optimizer state are not finite.
        """
        slots = (value for slots in self.optimizer.state.values() for value in slots.values())
        held = [loss.value.detach(), *self.method.state_dict().values(), *slots]
        parts = [own_part(value) for value in held if isinstance(value, Tensor) and value.is_floating_point()]
        finite = [part.isfinite().all() for part in parts]
        if any_rank(not all(ok.item() for ok in finite)):
            raise self._diverged(f"the loss or the weights are not finite at step {done}, which is not saved")

    def _diverged(self, what: str) -> InputError:
        saved = checkpoints(self.folder.checkpoints)
        good = f"{saved[-1]} is from before" if saved else "no checkpoint was written before"
        return InputError(f"{what}; lower optim.lr, add optim.warmup_steps or use train.precision fp32; {good}")

    def save(self, done: int) -> None:
        """Write a checkpoint and the encoder; only the main rank writes."""
        if self.ranks.is_main or is_sharded(self.method):
            save_checkpoint(
                self.folder.checkpoints,
                step=done,
                method=self.method,
                optimizer=self.optimizer,
                state={
                    "health": self.collapse.state_dict(),
                    "stores": [store.content_hash for store in self.stores],
                    "frames": self.frames_hashes(),
                },
                keep=self.config.train.keep_checkpoints,
                is_main=self.ranks.is_main,
            )
        self.write_encoder(done)

    def frames_hashes(self) -> list[str]:
        """Return for each store a hash of the frames that are trained on; labels do not change it."""
        parts = zip(self.stores, self.config.data.parts, strict=True)
        return [store.frames_hash(part.split) for store, part in parts]

    def write_encoder(self, done: int) -> None:
        """Write the encoder and its provenance (method, step, data); the main rank writes, the other ranks wait."""
        state = {name: whole(value) for name, value in self.method.encoder.backbone.state_dict().items()}
        if self.ranks.is_main:
            before, start_recorded = data_before(self.config.encoder.init)
            seen = [self.stores[number] for number in self.loader.sampler.drawn_from]
            own_teachers = self.method.teacher_records()
            old_teachers = [each for each in teachers_before(self.config.encoder.init) if each not in own_teachers]
            own = [{"store": store.content_hash, "licences": list(store.manifest.licences)} for store in seen]
            about = {
                "method": as_plain(self.config)["method"]["name"],
                "step": done,
                "run": self.folder.path.name,
                "config_hash": config_hash(self.config),
                "data": [*(store for store in before if store not in own), *own],
                "start_recorded": start_recorded,
            }
            if teachers := [*old_teachers, *own_teachers]:
                about["teachers"] = teachers
            save_encoder(self.method.encoder, self.folder.path / "encoder", extra=about, state=state)
        barrier()


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list instead of ending the process; a second Ctrl-C ends the process.

    SIGTERM may come twice. If it is sent to all processes, the launcher gets it too and sends it to its workers again.
    Outside the main thread, no signals are collected.
    """
    signals: list[int] = []

    def collect(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    if threading.current_thread() is not threading.main_thread():
        yield signals  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, collect) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
