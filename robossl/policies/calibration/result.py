"""The result of a calibration: joined cells, correlations, fitted thresholds and what words have meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from robossl.probes.result import Word

SCHEMA = "robossl.calibrate/1"
LOST_POINTS = 0.2  # drop of success that counts as a loss
Outcome = Literal["kept", "lost", "open", "too low"]
Target = Literal["share kept", "shifted success"]


@dataclass(frozen=True, slots=True)
class JoinedCell:
    """One encoder in one environment under one factor at one strength: what probes measured and what policies lost."""

    encoder: str  # its source; the control's name for a reference
    env: str
    factor: str
    level: int
    clean: float  # success without nuisance, 0 to 1
    shifted: float  # success under the factor
    drop: float  # clean minus shifted, with its paired interval over scenes and seeds
    drop_low: float
    drop_high: float
    share_kept: float | None  # shifted / clean; None if the clean success is too low to lose anything
    outcome: Outcome
    predictors: Mapping[str, float | None]
    word: Word | None  # verdict with the profile's thresholds; None if the profile does not ask for this cell
    held_out_word: Word | None  # verdict with thresholds that were fitted on the other half of the encoders


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % bootstrap interval over encoders; None if it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Correlation:
    """How well one predictor ranks the success of policies."""

    predictor: str
    target: Target
    factor: str | None  # None for the cells of all factors together
    cells: int
    encoders: int
    spearman: Estimate
    kendall: Estimate | None  # None within a factor
    mmrv: Estimate | None  # mean maximum rank violation, 0 is best; None within a factor
    minus_proxy: Estimate | None  # Spearman minus that of the state-prediction proxy, on the same cells
    minus_strength: Estimate | None  # Spearman minus that of the strength alone, on the same cells


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """Thresholds that were fitted on half of the encoders."""

    fitted_on: tuple[str, ...]
    held_out: tuple[str, ...]
    thresholds: Mapping[str, float]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WordCount:
    """How many cells with this verdict were kept, lost or open, and the mean drop of success in them."""

    thresholds: Literal["today", "fitted"]
    word: Word
    kept: int
    lost: int
    open: int
    mean_drop: float  # 0 to 1


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """What the verdicts of probes are worth, measured on policies. Prints as a table."""

    profile: str
    profile_sha256: str
    labels: tuple[str, ...]
    envs: tuple[str, ...]
    encoders: tuple[str, ...]
    cells: tuple[JoinedCell, ...]
    unmatched: tuple[str, ...]  # what has no partner, one line each
    correlations: tuple[Correlation, ...]
    fits: tuple[ThresholdFit, ...]
    thresholds: Mapping[str, float]  # fitted on all encoders; empty if no cell dropped by 20 points
    remarks: tuple[str, ...]
    counts: tuple[WordCount, ...]  # "fitted": each cell is judged with thresholds of the half it is not in
    seed: int
    command: str
    schema: str = SCHEMA

    def __str__(self) -> str:
        from robossl.policies.calibration.table import to_text

        return to_text(self)
