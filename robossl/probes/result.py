"""The report of a probe: frozen dataclasses that are written as JSON `robossl.probe/1` and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robossl.common.display import html_table
from robossl.measure.figures import Figure as Figure
from robossl.measure.subjects.subject import Backbone as Backbone
from robossl.measure.subjects.subject import SubjectInfo as SubjectInfo

SCHEMA = "robossl.probe/1"
# First words of the reason why a value is missing: no head can read the label, or the factor made the label undefined.
UNREADABLE, UNKNOWN = "task not readable", "the moved label is not known"
# Values of `Verdict.metric` for factors without a measurement: a factor that cannot be measured on these frames, and
# a factor that the run was not asked to measure.
NOT_MEASURED, LEFT_OUT = "not measured", "left out"

Need = Literal["INV", "EQUI", "INFO", "-"]
Word = Literal["SAFE", "SAFE IF TRAINED WITH IT", "RISKY", "INCONCLUSIVE", "UNUSABLE"]
Family = Literal["photometric", "geometric", "scene", "temporal"]
Flag = Literal["collapsed", "precision-fragile"]


@dataclass(frozen=True, slots=True)
class ViewFigures:
    """One view (frames transformed by a factor at one level), and how much it changed the pixels."""

    factor: str
    family: Family
    level: int  # 1 mild to 5 severe
    params: Mapping[str, Any]  # unit and values of the strength; two values if each frame got a random side (+ or -)
    # PSNR in dB against the clean frames: the mean over the frames that changed. None if no pixel changed.
    psnr: float | None
    # Structural similarity to the clean frames: the mean over up to 64 frames that changed. None if no pixel changed.
    ssim: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of transformed frames: nis, nis_w, eric, r1, mrr, auc, eq_map, eq_identity, pck or drift_px."""

    factor: str
    level: int
    metric: str
    figure: Figure
    # Numerator and denominator of the metric for each cluster (such as an episode); () if they were not kept.
    shares: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How well the strength of a factor can be decoded from the features; a score of 0 is chance, 1 is perfect."""

    factor: str
    level: int
    # Input of the probe. abs: features of the transformed frame. rel: these features minus those of the clean frame.
    protocol: Literal["abs", "rel"]
    probe: Literal["linear", "mlp"]
    kind: Literal["regression", "classification"]
    figure: Figure  # the score: R2, or (accuracy - chance) / (1 - chance)
    accuracy: float | None  # share of correct classes; None for regression
    chance: float | None  # accuracy of guessing; None for regression
    shuffled: tuple[float, float] | None  # 95 % range of the scores of linear probes that learned shuffled strengths


@dataclass(frozen=True, slots=True)
class Retention:
    """The share of a head's score on clean frames that is left on transformed frames: 1 is no loss, 0 is chance.

    Head "clean" is fitted on clean frames and tested with the label of the transformed frame. Head "same" is the same
    head, tested with the label of the clean frame. Head "augmented" is fitted on clean and transformed frames, and
    tested with the label of the transformed frame.
    """

    label: str
    factor: str
    level: int
    head: Literal["clean", "same", "augmented"]
    figure: Figure
    clean: float | None  # score (R2 or chance-corrected balanced accuracy) of the clean head on clean frames
    transformed: float | None  # score of this head on transformed frames


@dataclass(frozen=True, slots=True)
class CleanHead:
    """The score of a head on whole clean frames (not cut to a disc or square)."""

    label: str
    figure: Figure  # the score: R2, or chance-corrected balanced accuracy


@dataclass(frozen=True, slots=True)
class ProbeHealth:
    """Whether the features carry information; see `robossl.probes.health`."""

    rankme: float | None  # effective number of directions that the features use, without centring
    rankme_centred: float | None  # effective number of directions after centring
    rel_std: float | None
    fp16_error: float | None
    anisotropy: float | None
    uniformity: float | None
    alpha: float | None  # exponent of the fit i^-alpha to the i-th eigenvalue of the features' covariance
    spectrum: tuple[float, ...]  # the 64 largest singular values of the centred features, divided by the sum of all
    floor_nis_w: float | None  # metric nis_w for frames with noise of one grey level
    floor_r1: float | None  # metric r1 for frames with noise of one grey level
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Readings:
    """All measurements of one encoder."""

    name: str
    health: ProbeHealth
    cells: tuple[Cell, ...]
    decodings: tuple[Decoding, ...]
    retentions: tuple[Retention, ...]
    neighbours: tuple[Neighbours, ...] = ()
    clean_heads: tuple[CleanHead, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The worst wrong retrievals of transformed frames: the index of each query and of the frame that it found."""

    factor: str
    level: int
    pairs: tuple[tuple[int, int], ...]  # indices of the query and of the found frame, among the evaluated frames


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one factor at one level; if `level` is None, on the whole factor (verdict of its worst level)."""

    factor: str
    level: int | None
    need: Need
    word: Word
    metric: str  # name of the metric that decided the verdict, such as "retention of point (clean head)"
    figure: Figure  # the encoder's value of that metric
    references: Mapping[str, float | None]  # the baselines' values of that metric (pooled pixels and random weights)
    sentence: str  # sentence with the evidence for the verdict; if there is no evidence, it says why
    # Reason why the verdict is INCONCLUSIVE or UNUSABLE. Factors with exactly the same text share a line of the report.
    cause: str = ""


@dataclass(frozen=True, slots=True)
class ProbeData:
    """The frames that the probe used."""

    name: str
    sha256: str
    n_reference: int
    n_evaluation: int
    num_clusters: int  # number of clusters (such as episodes) from which the evaluated frames come
    cluster_key: str  # what a cluster is, such as "episode"
    resolution: tuple[int, int]  # height and width in pixels
    # True if frames transformed by geometric factors, and the clean frames compared with them, are cut to a disc.
    mask: bool
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WordRecord:
    """How many held-out cells with one verdict kept their success, lost it, or are open, and their mean drop."""

    kept: int
    lost: int
    open: int
    mean_drop: int  # of success, in points


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """What each verdict has meant for policies of encoders that were held out when thresholds were fitted."""

    environments: tuple[str, ...]
    encoders: int
    points: int  # drop of success, in points, that counts as lost
    words: Mapping[str, WordRecord]


@dataclass(frozen=True, slots=True)
class TaskNeeds:
    """The task: the name of its profile, and what the task needs of each factor."""

    profile: str
    sha256: str
    calibrated: bool
    max_level: Mapping[str, int]
    needs: Mapping[str, tuple[Need, ...]]  # needs of each factor, one for each level
    about: str = ""  # the profile's text about the task and what the verdicts mean
    # Names of the labels that the task reads; () if it judges without labels; None in reports without this field.
    labels: tuple[str, ...] | None = None
    calibration: CalibrationRecord | None = None  # None in reports of uncalibrated profiles


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The measurements and verdicts of one encoder on one set of frames for one task; `print` shows the verdicts.

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
    # The fields of `ProbeSettings`, the command line ("command"), and why factors were not rendered ("unavailable").
    settings: Mapping[str, Any]
    views: tuple[ViewFigures, ...]
    readings: Readings
    references: Mapping[str, Readings]  # measurements of the baselines "pixels" and "random_init"
    task: TaskNeeds | None
    verdicts: tuple[Verdict, ...]
    word: Word | None  # the worst verdict of all factors; None if no profile was given or no factor was measured
    random_backbone: Backbone | None = None  # network architecture of the baseline "random_init"
    schema: str = SCHEMA

    def __repr__(self) -> str:
        verdict = f"{self.word} for {self.task.profile}" if self.task else "not judged"
        return f"Report({self.encoder.name} on {self.data.name}: {verdict})"

    def __str__(self) -> str:
        """Return the verdicts as text, as `robossl probe run` prints them."""
        from robossl.probes.output import summary

        return "\n".join(summary(self))

    def _repr_html_(self) -> str:
        from robossl.probes.output import summary

        title, *notes = summary(self)
        rows = [(each.factor, each.word, each.metric, each.sentence) for each in self.verdicts if each.level is None]
        header = ("factor", "verdict", "decided by", "evidence")
        return html_table(title, rows, header=header, notes=[] if rows else [title, *notes])
