"""The one loop: it knows no method by name. Resume is exact because everything drawn depends on (seed, step) alone."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DataParallel

from robossl.augment import Augment
from robossl.cards import data_before
from robossl.checkpoint import save_checkpoint
from robossl.config import as_plain, config_hash
from robossl.data.loader import Loader
from robossl.data.store import Store
from robossl.encoder import save_encoder
from robossl.errors import InputError
from robossl.health import HealthMonitor
from robossl.method import Loss, Method
from robossl.metrics import Progress, Sink
from robossl.online import OnlineKnn
from robossl.optim import clip_gradients, set_rates
from robossl.ranks import Ranks, all_reduce_mean, any_rank, barrier, gather
from robossl.run import RunConfig, RunFolder
from robossl.views import Batch

STOP_CHECK_EVERY = 10  # steps between asking all ranks whether one was told to stop


class Stopped(Exception):
    """SIGTERM or SIGINT came; the run was saved."""


@dataclass(slots=True)
class Trainer:
    """Everything one rank holds while training."""

    config: RunConfig
    ranks: Ranks
    folder: RunFolder
    stores: list[Store]  # the first is evaluated on while training
    method: Method
    model: nn.Module  # the method, wrapped for ranks and compilation
    optimizer: torch.optim.Optimizer
    loader: Loader
    augment: Augment
    health: HealthMonitor
    knn: OnlineKnn | None

    def run(self, *, start: int, progress: Progress, sinks: list[Sink]) -> None:
        """Steps `start` to the end. Raises `Stopped` after saving when told to stop."""
        steps = self.config.train.steps
        if start == steps:
            self.save(start)  # it may have been killed after the last checkpoint, before the encoder was written
        clock, clock_step = time.perf_counter(), start
        with stop_signals() as told:
            for step, raw in enumerate(self.loader.batches(start=start, stop=steps), start=start):
                lr = set_rates(
                    self.optimizer,
                    self.config.optim,
                    step=step,
                    steps=steps,
                    batch_size=self.config.train.batch_size,
                )
                loss = self.step(step, self.augment(raw))
                done = step + 1
                values: dict[str, float] = {}
                if done % self.config.train.log_every == 0 or done == steps:
                    values = self.scalars(loss, lr) | {
                        "samples_per_s": (done - clock_step)
                        * self.config.train.batch_size
                        / (time.perf_counter() - clock)
                    }
                    progress.update(done, values)
                    clock, clock_step = time.perf_counter(), done
                values |= self.checks(done, loss, progress)
                if values:
                    for sink in sinks:
                        sink.write(done, values)
                if done % self.config.train.checkpoint_every == 0 or done == steps:
                    self.save(done)
                if self.stops(done, told):
                    self.save(done)
                    raise Stopped(f"stopped at step {done} and saved; go on with --resume")

    def stops(self, done: int, told: list[int]) -> bool:
        """Whether any rank was told to stop; several ranks ask each other now and then only."""
        alone = self.ranks.world_size == 1
        return (alone or done % STOP_CHECK_EVERY == 0) and any_rank(bool(told))

    def step(self, step: int, batch: Batch) -> Loss:
        """Forward, backward and update on one batch; model randomness (drop path) is drawn from (seed, step, rank)."""
        config = self.config.train
        torch.manual_seed((self.config.seed * 1_000_003 + step) * 4099 + self.ranks.rank)
        self.method.before_step(step, config.steps)
        parts = split(batch, config.accumulate)
        self.optimizer.zero_grad(set_to_none=True)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with (
                self.model.no_sync() if isinstance(self.model, DataParallel) and not last else contextlib.nullcontext()
            ):
                with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    loss: Loss = self.model(part)
                (loss.value / len(parts)).backward()  # type: ignore[no-untyped-call]
        self.method.after_backward()
        clip_gradients(self.method, self.config.optim)
        self.optimizer.step()
        self.method.after_step((step + 1) / config.steps)
        return loss

    def scalars(self, loss: Loss, lr: float) -> dict[str, float]:
        """Loss and metrics, averaged over ranks. Raises InputError when the loss is no longer finite."""
        names = ["loss", *loss.metrics]
        mean = all_reduce_mean(torch.stack([loss.value.detach().float(), *(v.float() for v in loss.metrics.values())]))
        values = dict(zip(names, mean.tolist(), strict=True)) | {"lr": lr}
        if not math.isfinite(values["loss"]):
            raise InputError(
                "the loss is not finite; lower optim.lr, add optim.warmup_steps or use train.precision fp32; "
                "the last checkpoint is from before"
            )
        return values

    def checks(self, done: int, loss: Loss, progress: Progress) -> dict[str, float]:
        """Health and online kNN, when they are due."""
        values: dict[str, float] = {}
        if done % self.config.train.health_every == 0:
            values, warning = self.health.check(tuple(gather(out) for out in loss.outputs))
            if warning:
                progress.say(f"step {done}: {warning}")
        if self.knn and self.ranks.is_main and done % self.knn.config.every == 0:
            values |= self.knn(self.method.encoder)
        return values

    def save(self, done: int) -> None:
        """Checkpoint and encoder, written by the first rank."""
        if self.ranks.is_main:
            save_checkpoint(
                self.folder.checkpoints,
                step=done,
                method=self.method,
                optimizer=self.optimizer,
                state={"health": self.health.state_dict()},
                keep=self.config.train.keep_checkpoints,
            )
            before, start_recorded = data_before(self.config.encoder.init)
            own = [{"store": store.content_hash, "licences": list(store.manifest.licences)} for store in self.stores]
            about = {
                "method": as_plain(self.config)["method"]["name"],
                "step": done,
                "run": self.folder.path.name,
                "config_hash": config_hash(self.config),
                "data": [*(store for store in before if store not in own), *own],
                "start_recorded": start_recorded,
            }
            save_encoder(self.method.encoder, self.folder.path / "encoder", extra=about)
        barrier()


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into `parts` micro-batches along its first axis."""
    size = len(batch.index) // parts
    return [batch[i * size : (i + 1) * size] for i in range(parts)] if parts > 1 else [batch]


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGTERM and SIGINT instead of the process being ended; a second one ends it."""
    told: list[int] = []

    def tell(number: int, frame: FrameType | None) -> None:
        told.append(number)
        signal.signal(number, before[signal.Signals(number)])

    if threading.current_thread() is not threading.main_thread():
        yield told  # only the main thread may take signals
        return
    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
