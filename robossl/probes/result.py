"""The report of a probe: frozen records, written as JSON `robossl.probe/1` and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robossl.display import html_table
from robossl.measure.figures import Figure as Figure
from robossl.measure.subjects.subject import Backbone as Backbone
from robossl.measure.subjects.subject import SubjectInfo as SubjectInfo

SCHEMA = "robossl.probe/1"
# How the reason of a missing figure begins: no head reads the label; the label is undefined under the factor.
UNREADABLE, UNKNOWN = "task not readable", "the moved label is not known"
# The metric of a verdict without a measurement: these frames cannot show the factor; the run left it out.
NOT_MEASURED, LEFT_OUT = "not measured", "left out"

Need = Literal["INV", "EQUI", "INFO", "-"]
Word = Literal["SAFE", "SAFE IF TRAINED WITH IT", "RISKY", "INCONCLUSIVE", "UNUSABLE"]
Family = Literal["photometric", "geometric", "scene", "temporal"]
Flag = Literal["collapsed", "precision-fragile"]


@dataclass(frozen=True, slots=True)
class ViewFigures:
    """One factor at one strength, and how far it moved the pixels."""

    factor: str
    family: Family
    level: int  # 1 mild to 5 severe
    params: Mapping[str, Any]  # in the unit of the factor; two values if the side is drawn
    psnr: float | None  # dB to the clean view, mean over frames; None if no pixel differs
    ssim: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one view: nis, nis_w, eric, r1, mrr, auc, eq_map, eq_identity, pck, drift_px."""

    factor: str
    level: int
    metric: str
    figure: Figure
    # Numerator and denominator of each cluster: the value is the ratio of their sums. Paired comparisons need them.
    shares: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How well the strength of a factor can be decoded from the features: 0 is chance, 1 is perfect."""

    factor: str
    level: int
    protocol: Literal["abs", "rel"]
    probe: Literal["linear", "mlp"]
    kind: Literal["regression", "classification"]
    figure: Figure  # R2, or (accuracy - chance) / (1 - chance)
    accuracy: float | None  # classification only
    chance: float | None  # classification only
    shuffled: tuple[float, float] | None  # 95 % range of the score with shuffled labels


@dataclass(frozen=True, slots=True)
class Retention:
    """The share of a head's clean score that is left under a view: 1 is no loss, 0 is chance."""

    label: str
    factor: str
    level: int
    # clean: fitted on clean frames, tested with the moved label T.y; same: tested with the old label y;
    # augmented: fitted on clean and transformed frames with T.y, tested with T.y
    head: Literal["clean", "same", "augmented"]
    figure: Figure
    clean: float | None  # R2 or chance-corrected balanced accuracy on clean frames
    transformed: float | None


@dataclass(frozen=True, slots=True)
class CleanHead:
    """The score of a head on whole clean frames; retention is a share of it."""

    label: str
    figure: Figure  # R2, or chance-corrected balanced accuracy


@dataclass(frozen=True, slots=True)
class ProbeHealth:
    """Whether the features carry information; see `robossl.probes.health`."""

    rankme: float | None  # of raw features
    rankme_centred: float | None
    rel_std: float | None
    fp16_error: float | None
    anisotropy: float | None
    uniformity: float | None
    alpha: float | None  # slope of the eigenspectrum
    spectrum: tuple[float, ...]  # singular values of the centred features over their sum, up to 64
    floor_nis_w: float | None  # of one grey level of noise
    floor_r1: float | None
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything measured for one encoder."""

    name: str
    health: ProbeHealth
    cells: tuple[Cell, ...]
    decodings: tuple[Decoding, ...]
    retentions: tuple[Retention, ...]
    neighbours: tuple[Neighbours, ...] = ()
    clean_heads: tuple[CleanHead, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Wrong retrievals under a view: positions of the query and of the frame that was found."""

    factor: str
    level: int
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one factor for a task; `level` is None for the factor as a whole, which is its worst level."""

    factor: str
    level: int | None
    need: Need
    word: Word
    metric: str  # what decided: "retention of point (clean head)", "nis_w and r1", ...
    figure: Figure
    references: Mapping[str, float | None]  # the same metric of pixels and random init
    sentence: str  # with the evidence
    cause: str = ""  # why it is INCONCLUSIVE or UNUSABLE, without figures; factors with one cause share a line


@dataclass(frozen=True, slots=True)
class ProbeData:
    """The frames of the probe."""

    name: str
    sha256: str
    n_reference: int
    n_evaluation: int
    num_clusters: int
    cluster_key: str
    resolution: tuple[int, int]
    mask: bool  # whether views of geometric factors, also the clean ones, are cut to a disc
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskNeeds:
    """The task: the profile, and its need of each factor."""

    profile: str
    sha256: str
    calibrated: bool
    max_level: Mapping[str, int]
    needs: Mapping[str, tuple[Need, ...]]  # one a level
    about: str = ""  # what the verdicts mean, in the words of the profile
    labels: tuple[str, ...] | None = None  # that it reads; () if it judges without labels


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The measurements and verdicts of one encoder on one set of frames for one task; it prints the verdicts.

    Example:
        >>> import robossl
        >>> report = robossl.probe("runs/tiny", data="stores/clips", factors=["hue"], quick=True, frames=20)
        clips: ...
        >>> sorted({cell.metric for cell in report.readings.cells})[:3]
        ['auc', 'eric', 'mrr']
    """

    created: str
    encoder: SubjectInfo
    data: ProbeData
    settings: Mapping[str, Any]  # seed, bootstrap, shrinkage, probes, quick
    views: tuple[ViewFigures, ...]
    readings: Readings
    references: Mapping[str, Readings]  # "pixels", "random_init"
    task: TaskNeeds | None
    verdicts: tuple[Verdict, ...]
    word: Word | None  # the worst over the factors; None without a profile
    random_backbone: Backbone | None = None  # of "random_init"
    schema: str = SCHEMA

    def __repr__(self) -> str:
        verdict = f"{self.word} for {self.task.profile}" if self.task else "not judged"
        return f"Report({self.encoder.name} on {self.data.name}: {verdict})"

    def __str__(self) -> str:
        """The verdicts, as `robossl probe run` prints them."""
        from robossl.probes.output import summary

        return "\n".join(summary(self))

    def _repr_html_(self) -> str:
        from robossl.probes.output import summary

        title, *notes = summary(self)
        rows = [(each.factor, each.word, each.metric, each.sentence) for each in self.verdicts if each.level is None]
        header = ("factor", "verdict", "decided by", "evidence")
        return html_table(title, rows, header=header, notes=[] if rows else [title, *notes])
