"""The result of a transfer measurement: rows (encoders and controls) with a score for each factor and strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA = "robossl.transfer/1"
CLEAN = "clean"  # name of the condition without nuisances


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """Everything that the scores depend on, except the encoders, the factors and their strengths."""

    env: str
    demos: int  # successful demonstrations for each policy
    action_noise: float  # std of the noise on the expert's actions, of half their range
    head: str
    tune: Literal["frozen", "last", "all"]
    proprioception: bool
    stack: int  # frames that a policy sees at once
    steps: int  # training steps of a policy on frozen features, or without features
    network_steps: int  # training steps of a policy that trains a network too
    rollouts: int  # scenes in which each policy is rolled out; the same for all policies
    image_size: int
    seed: int  # the first of the policies' seeds


@dataclass(frozen=True, slots=True)
class ConditionScore:
    """Rollouts of one row's policies (one for each seed) under one factor at one strength."""

    factor: str  # "clean" for no nuisance
    strength: int  # 0 for no nuisance
    trials: int
    successes: int  # episodes with a success at any step
    success: float  # share of the trials
    low: float  # 95 % interval of the share (Wilson), as if all trials were independent
    high: float
    final_success: float  # share of the trials with success at the last step
    mean_return: float
    mean_steps: float
    by_seed: tuple[tuple[bool, ...], ...]  # success of each seed's policy in each scene


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Success of an encoder minus that of a control, in the same scenes, with a 95 % interval over scenes and seeds."""

    control: str
    factor: str
    strength: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TransferRow:
    """One encoder or one control."""

    name: str
    kind: Literal["encoder", "control"]
    source: str
    digest: str  # of everything that the policies depend on
    sha256: str  # of the encoder's weights, as a probe report has it; "" for a control
    losses: tuple[float, ...]  # of each seed's policy on its demonstrations, at the end of training
    scores: tuple[ConditionScore, ...]
    differences: tuple[PairedDifference, ...]  # against each control; none for a control


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A table of what policies reach, clean and under nuisances. Prints as a table."""

    settings: TransferSettings
    seeds: int
    frames: tuple[int, ...]  # frames in the demonstrations of each seed
    failed_demos: tuple[int, ...]  # episodes of the expert that failed and were left out, for each seed
    scenes: tuple[int, ...]  # seeds of the rollouts' scenes
    rows: tuple[TransferRow, ...]
    command: str
    schema: str = SCHEMA

    def __str__(self) -> str:
        from robossl.policies.table import to_text

        return to_text(self)

    def __repr__(self) -> str:
        best = max((row for row in self.rows if row.kind == "encoder"), key=lambda row: row.scores[0].success)
        clean = best.scores[0]
        return (
            f"TransferResult({self.settings.env}: {best.name} {clean.success:.0%} clean, {len(self.rows)} rows, "
            f"{len(best.scores)} conditions)"
        )
