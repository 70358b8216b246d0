"""The one loop: it knows no method by name. Resume is exact because everything drawn depends on (seed, step) alone."""

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

from robossl.augment import Augment
from robossl.batch_norm import one_value_said
from robossl.cards import data_before
from robossl.checkpoint import checkpoints, save_checkpoint
from robossl.config import as_plain, config_hash
from robossl.data.loader import BatchLoader
from robossl.data.store import Store
from robossl.encoder import save_encoder
from robossl.errors import InputError
from robossl.health import HealthMonitor
from robossl.method import Loss, Method
from robossl.metrics import Sink, describe_step
from robossl.micro_batches import accumulate, split
from robossl.online import OnlineKnn
from robossl.optim import clip_gradients, set_rates
from robossl.progress import Progress
from robossl.ranks import Ranks, all_reduce_mean, any_rank, barrier, gather
from robossl.run import RunConfig, RunFolder
from robossl.views import Batch


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
    loader: BatchLoader
    augment: Augment
    health: HealthMonitor
    knn: OnlineKnn | None
    remarks: tuple[str, ...] = ()  # on what of the recipe was changed to fit; said when the run starts

    def run(self, *, start: int, progress: Progress, sinks: list[Sink]) -> None:
        """Steps `start` to the end. Raises `Stopped` after saving when told to stop."""
        steps = self.config.train.steps
        if start == steps:
            self.write_encoder(start)  # it may have been killed after the last checkpoint, before this was written
        clock, clock_step = time.perf_counter(), start
        progress.show("pretrain", start, steps, note="")
        with stop_signals() as told, contextlib.closing(self.loader.batches(start=start, stop=steps)) as batches:
            for step, raw in enumerate(batches, start=start):
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
                    is_first, is_last = clock_step == start, done == steps
                    note = ("" if is_last else "{left} left  ") + describe_step(values)
                    line = "step {done}/{total}  " + note
                    progress.show("pretrain", done, steps, note=note, line=line, line_now=is_first or is_last)
                    clock, clock_step = time.perf_counter(), done
                values |= self.checks(done, loss, progress)
                if values:
                    for sink in sinks:
                        sink.write(done, values)
                stops = any_rank(bool(told))
                if stops or done % self.config.train.checkpoint_every == 0 or done == steps:
                    self.check_finite(done, loss)
                    self.save(done)
                if stops:
                    raise Stopped(
                        f"stopped at step {done} and saved; go on with --resume: "
                        + shlex.join(["robossl", "pretrain", str(self.folder.path), "--resume"])
                    )

    def step(self, step: int, batch: Batch) -> Loss:
        """Forward, backward and update on one batch; model randomness (drop path) is drawn from (seed, step, rank).

        The loss returned is the mean over micro-batches, with the outputs of the last.
        """
        config = self.config.train
        torch.manual_seed((self.config.seed * 1_000_003 + step) * 4099 + self.ranks.rank)
        self.method.before_step(step, config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss = accumulate(self.method, self.model, split(batch, config.accumulate), self._forward)
        self.method.after_backward()
        clip_gradients(self.method, self.config.optim)
        self.optimizer.step()
        self.method.after_step((step + 1) / config.steps)
        return loss

    @contextlib.contextmanager
    def _forward(self) -> Iterator[None]:
        """The context of a forward pass."""
        config = self.config.train
        with (
            torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=config.precision == "bf16"),
            one_value_said(config.batch_size),
        ):
            yield

    def scalars(self, loss: Loss, lr: float) -> dict[str, float]:
        """Loss and metrics, averaged over ranks. Raises InputError when the loss is no longer finite."""
        names = ["loss", *loss.metrics]
        mean = all_reduce_mean(torch.stack([loss.value.detach().float(), *(v.float() for v in loss.metrics.values())]))
        values = dict(zip(names, mean.tolist(), strict=True)) | {"lr": lr}
        if not math.isfinite(values["loss"]):
            raise self._diverged("the loss is not finite")
        return values

    def check_finite(self, done: int, loss: Loss) -> None:
        """Refuse to save what no run can go on from. Raises InputError on every rank when it is so on one."""
        slots = (value for slots in self.optimizer.state.values() for value in slots.values())
        held = [loss.value.detach(), *self.method.state_dict().values(), *slots]
        finite = [value.isfinite().all() for value in held if isinstance(value, Tensor) and value.is_floating_point()]
        if any_rank(not all(ok.item() for ok in finite)):
            raise self._diverged(f"the loss or the weights are not finite at step {done}, which is not saved")

    def _diverged(self, what: str) -> InputError:
        saved = checkpoints(self.folder.checkpoints)
        good = f"{saved[-1]} is from before" if saved else "no checkpoint was written before"
        return InputError(f"{what}; lower optim.lr, add optim.warmup_steps or use train.precision fp32; {good}")

    def checks(self, done: int, loss: Loss, progress: Progress) -> dict[str, float]:
        """Health and online kNN, when they are due."""
        values: dict[str, float] = {}
        if done % self.config.train.health_every == 0:
            values, warning = self.health.check(tuple(gather(out) for out in loss.outputs))
            if warning:
                progress.say(f"step {done}: {warning}")
        if self.knn and self.ranks.is_main and (done % self.knn.config.every == 0 or done == self.config.train.steps):
            values |= (scored := self.knn(self.method.encoder))
            progress.say(f"step {done}: {self.knn.describe(scored)}")
        return values

    def save(self, done: int) -> None:
        """Checkpoint and encoder, written by the first rank."""
        if self.ranks.is_main:
            save_checkpoint(
                self.folder.checkpoints,
                step=done,
                method=self.method,
                optimizer=self.optimizer,
                state={
                    "health": self.health.state_dict(),
                    "stores": [store.content_hash for store in self.stores],
                    "frames": self.frames_hashes(),
                },
                keep=self.config.train.keep_checkpoints,
            )
        self.write_encoder(done)

    def frames_hashes(self) -> list[str]:
        """What each store gives to train on, without labels."""
        parts = zip(self.stores, self.config.data.parts, strict=True)
        return [store.frames_hash(part.split) for store, part in parts]

    def write_encoder(self, done: int) -> None:
        """The encoder alone, written by the first rank."""
        if self.ranks.is_main:
            before, start_recorded = data_before(self.config.encoder.init)
            seen = [self.stores[number] for number in self.loader.sampler.drawn_from]
            own = [{"store": store.content_hash, "licences": list(store.manifest.licences)} for store in seen]
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


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGTERM and SIGINT instead of the process being ended; a second Ctrl-C ends it.

    SIGTERM may come twice: to all processes at once, and again from the launcher, which was told as well.
    """
    told: list[int] = []

    def tell(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    if threading.current_thread() is not threading.main_thread():
        yield told  # only the main thread may take signals
        return
    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
