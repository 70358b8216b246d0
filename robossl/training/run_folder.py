"""The folder that a run writes, and the checks before a run may write to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from robossl.common.atomic_io import atomic_write
from robossl.common.config import difference, to_yaml
from robossl.errors import InputError
from robossl.training.checkpoint import checkpoints
from robossl.training.run_config import RunConfig, as_saved, load_saved

# What a run writes before its first checkpoint. A folder that holds nothing else, and no checkpoint, may be reused.
_BEFORE_THE_FIRST_SAVE = {".lock", "config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "checkpoints"}

# Keys that may change on resume, because the weights do not depend on them.
FREE_ON_RESUME = (
    "knn",
    "data.num_workers",
    "data.resident_gib",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.sinks",
)


class RunFolder:
    """The folder that a run writes: config.yaml, metrics.jsonl, log.txt, tensorboard/, checkpoints/, encoder/.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def claim(self, config: RunConfig, *, resume: bool, may_lengthen: bool = False) -> None:
        """Run `check`, make the folder and write the configuration; only the main rank calls this.

        Raises:
            InputError: for the reasons that `check` gives.
        """
        self.check(config, resume=resume, may_lengthen=may_lengthen)
        saved = self.path / "config.yaml"
        if resume and saved.exists():
            config = as_saved(config, load_saved(saved))
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path / "config.yaml") as aside:
            aside.write_text(to_yaml(config))

    def check(self, config: RunConfig, *, resume: bool, may_lengthen: bool = False) -> None:
        """Check that the folder is free for this run, or with `resume` that it holds this run.

        A folder whose run saved no checkpoint counts as free.

        Args:
            config: The configuration of this run.
            resume: Go on with the run in the folder.
            may_lengthen: Accept more steps than the run in the folder had.

        Raises:
            InputError: the folder holds a run and `resume` is off, the run has another configuration or no
                config.yaml, or there is no run to resume.
        """
        saved = self.path / "config.yaml"
        if saved.exists():
            if self._has_work():
                self._check_same(saved, config, resume=resume, may_lengthen=may_lengthen)
        elif checkpoints(self.checkpoints):
            raise InputError(f"{self.path} has checkpoints but no config.yaml; put it back or choose another --out")
        elif resume:
            raise InputError(f"nothing to resume in {self.path}: no config.yaml; leave out --resume to start one")

    def _has_work(self) -> bool:
        others = {path.name for path in self.path.iterdir()} - _BEFORE_THE_FIRST_SAVE
        return bool(others or checkpoints(self.checkpoints))

    def _check_same(self, saved: Path, config: RunConfig, *, resume: bool, may_lengthen: bool) -> None:
        if not resume:
            raise InputError(f"{self.path} already holds a run; add --resume to go on with it or choose another --out")
        before = load_saved(saved)
        config = as_saved(config, before)
        if may_lengthen and config.train.steps < before.train.steps:
            raise InputError(
                f"{self.path} is a run of {before.train.steps} steps, got --train.steps {config.train.steps}; a run "
                "can be lengthened, not shortened: give more steps, or start a new run with another --out"
            )
        if may_lengthen and config.train.steps > before.train.steps:
            before = replace(before, train=replace(before.train, steps=config.train.steps))
        changed = [line for line in difference(before, config) if not line.startswith(FREE_ON_RESUME)]
        if changed:
            raise InputError(
                f"cannot resume {self.path} with another configuration ({'; '.join(changed)}); "
                "undo these or start a new run with another --out"
            )

    def truncate_metrics(self, step: int) -> None:
        """Remove lines of steps after `step` from metrics.jsonl, and a half-written last line of a killed run."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            with atomic_write(path) as aside:
                aside.write_text("".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
