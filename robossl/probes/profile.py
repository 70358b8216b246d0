"""Task profiles: what a task needs of each factor, in TOML; ours lie in `profiles/`, users write their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robossl.probes.result import Need


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The bounds of the decision rule; those of the reference profiles are not yet calibrated on policy drops."""

    inv_retention: float = 0.9
    inv_nis_w: float = 0.8
    inv_r1: float = 0.9
    inv_nis_w_risky: float = 0.5
    inv_r1_risky: float = 0.5
    equi_decoding: float = 0.3
    equi_share_of_pixels: float = 0.5
    equi_retention: float = 0.8
    over_invariant_nis_w: float = 0.8
    over_invariant_decoding: float = 0.2
    info_decoding: float = 0.5
    info_decoding_risky: float = 0.2
    readable: float = 0.15  # clean score above chance, below which a task is not readable
    min_clusters: int = 20


@dataclass(frozen=True, slots=True)
class FactorNeed:
    """The need at each of the five levels, and up to which level it is judged."""

    needs: tuple[Need, Need, Need, Need, Need]
    max_level: int = 3


@dataclass(frozen=True, slots=True)
class Profile:
    """One task."""

    name: str
    title: str
    about: str
    version: int
    calibrated: bool
    labels: tuple[str, ...]  # names of labels that the task reads, in order of preference; may be empty
    factors: Mapping[str, FactorNeed]
    thresholds: Thresholds
    sha256: str
