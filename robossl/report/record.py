"""Read the records of a run folder: configuration, metrics, encoder and evaluations."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.common.config import read_mapping
from robossl.encoders.encoder_files import read_about
from robossl.errors import InputError
from robossl.evaluation.result import Result, ScoreRow, Scores, read_evaluation
from robossl.measure.collapse import LOW_CHECKS, LOW_RANK, LOW_STD, MIN_SAMPLES_FOR_RANK


class Series(NamedTuple):
    """The logged values of one metric and the steps at which they were logged."""

    steps: Int[ndarray, " n"]
    values: Float[ndarray, " n"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that a run folder holds."""

    path: Path
    config: dict[str, Any]  # content of config.yaml
    encoder: dict[str, Any]  # content of encoder/encoder.json; empty before the first checkpoint
    metrics: dict[str, Series]
    evaluations: tuple[Scores, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def last_step(self) -> int:
        """The last step that was logged."""
        return max((int(series.steps[-1]) for series in self.metrics.values()), default=0)

    def setting(self, *keys: str) -> Any:
        """Return the value in config.yaml that these nested keys lead to; None if a key is missing."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def last(self, name: str) -> float | None:
        """Return the last value of a metric; None if it was not logged."""
        return float(self.metrics[name].values[-1]) if name in self.metrics else None

    def own_row(self, evaluation: Scores, result: Result) -> ScoreRow | None:
        """Return the row of the encoder that the run folder holds now; None if only other weights were evaluated."""
        if not self.encoder:
            return None
        mine = self.encoder["digest"], self.encoder["config"].get("input_hw")
        rows = (row for row in result.rows if row.kind == "encoder")
        # Rows and descriptions of encoders are both in the order of the command line.
        each = zip(rows, evaluation.about.get("encoders", []), strict=False)
        return next((row for row, about in each if (about.get("digest"), about.get("input_hw")) == mine), None)


def read_run(path: Path) -> RunRecord:
    """Read a run folder; a run that still trains or was killed is read up to its last step.

    Raises:
        InputError: the folder is not a run, or its encoder or an evaluation cannot be read.
    """
    if not (path / "config.yaml").is_file() or not (path / "metrics.jsonl").is_file():
        raise InputError(f"{path} is not a run folder (no config.yaml and metrics.jsonl); pass what pretrain wrote")
    config = read_mapping(path / "config.yaml")
    encoder = path / "encoder"
    return RunRecord(
        path=path,
        config=config,
        encoder=read_about(encoder) if (encoder / "encoder.json").is_file() else {},
        metrics=read_metrics(path / "metrics.jsonl"),
        evaluations=tuple(read_evaluation(each) for each in sorted(path.glob("evaluation*.json"))),
    )


def read_metrics(path: Path) -> dict[str, Series]:
    """Return the values of every metric by its name; skip lines that are incomplete and values that are not finite."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float) and np.isfinite(value):
                found.setdefault(name, []).append((values["step"], float(value)))
    return {
        name: Series(np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))
        for name, pairs in found.items()
    }


class Collapse(NamedTuple):
    """A collapse of the encoder's outputs, as `robossl.measure.collapse` defines it."""

    first_step: int
    is_over: bool  # True if the outputs were healthy again at the last check
    reason: str


def find_collapse(record: RunRecord) -> Collapse | None:
    """Return a collapse that the logged health metrics show; None if they show no collapse.

    The rule is the same as during training.
    """
    found = []
    if "health/std" in record.metrics and "health/std_reference" in record.metrics:
        std, reference = record.metrics["health/std"], record.metrics["health/std_reference"]
        low = std.values < LOW_STD * np.interp(std.steps, *reference)
        running = np.convolve(low, np.ones(LOW_CHECKS), mode="full")[: len(low)] >= LOW_CHECKS
        found.append((std.steps, running, "all frames get nearly the same output"))
    samples = (record.setting("train", "batch_size") or math.inf) // (record.setting("train", "accumulate") or 1)
    if "health/rank" in record.metrics and samples >= MIN_SAMPLES_FOR_RANK:
        rank = record.metrics["health/rank"]
        found.append((rank.steps, rank.values < LOW_RANK, "the outputs of all frames lie along one direction"))
    met = [Collapse(int(steps[np.argmax(bad)]), not bad[-1], reason) for steps, bad, reason in found if bad.any()]
    return min(met, key=lambda collapse: (collapse.is_over, collapse.first_step), default=None)
