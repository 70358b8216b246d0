"""What a probe found, as frozen records that are written as JSON `robossl.probe/1` and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robossl.display import html_table

SCHEMA = "robossl.probe/1"
UNREADABLE = "task not readable"  # how the reason of a figure begins where the encoder does not give the label
UNKNOWN = "the moved label is not known"  # and where nobody can say what the label becomes
NOT_MEASURED, LEFT_OUT = "not measured", "left out"  # a verdict on what these frames cannot show; on what was not asked

Need = Literal["INV", "EQUI", "INFO", "-"]
Word = Literal["SAFE", "SAFE IF TRAINED WITH IT", "RISKY", "INCONCLUSIVE", "UNUSABLE"]
Family = Literal["photometric", "geometric", "scene", "temporal"]
Flag = Literal["collapsed", "precision-fragile"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval; all three are None where there is a reason for having none."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # frames behind it
    clusters: int  # independent units behind it
    reason: str | None = None  # why there is no value


@dataclass(frozen=True, slots=True)
class View:
    """What was done to the frames at one strength, and how far that moved the pixels."""

    factor: str
    family: Family
    level: int  # 1 mild to 5 severe
    params: Mapping[str, Any]  # in the units of the grid; a pair of values where the side is drawn
    psnr: float | None  # dB to the clean view, the mean over frames; None where they are the same
    ssim: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one view: nis, nis_w, eric, r1, mrr, auc, eq_map, eq_identity, pck, drift_px."""

    factor: str
    level: int
    metric: str
    figure: Figure
    shares: tuple[tuple[float, float], ...] = ()  # of each cluster, in their order: the value is the sum of the first
    # over the sum of the second, so that two reports on the same frames are compared in pairs


@dataclass(frozen=True, slots=True)
class Decoding:
    """How well the transformation's parameter can be read off the features: 0 chance, 1 perfect."""

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
    """How much of a task's head is left under a view: 1 no loss, 0 chance."""

    label: str
    factor: str
    level: int
    head: Literal["clean", "same", "augmented"]  # clean: fitted on clean frames, tested with T.y; same: tested with y
    # itself; augmented: fitted on clean and transformed frames with T.y, tested with T.y
    figure: Figure
    clean: float | None  # R2 or chance-corrected balanced accuracy on clean frames
    transformed: float | None


@dataclass(frozen=True, slots=True)
class CleanHead:
    """How well a head reads a label off whole clean frames: what retention is a share of."""

    label: str
    figure: Figure  # R2, or chance-corrected balanced accuracy


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the features can carry anything; see `robossl.probes.health`."""

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
    """Everything measured of one encoder."""

    name: str
    health: Health
    cells: tuple[Cell, ...]
    decodings: tuple[Decoding, ...]
    retentions: tuple[Retention, ...]
    neighbours: tuple[Neighbours, ...] = ()
    clean_heads: tuple[CleanHead, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Frames that are taken for another under a view: positions of the query and of the frame that was found."""

    factor: str
    level: int
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows for a task from one factor; `level` is None for the factor's verdict, the worst of its levels."""

    factor: str
    level: int | None
    need: Need
    word: Word
    metric: str  # what decided: "retention of point (clean head)", "nis_w and r1", ...
    figure: Figure
    references: Mapping[str, float | None]  # the same metric of pixels and random init
    sentence: str  # one plain sentence with the evidence
    cause: str = ""  # why it is INCONCLUSIVE or UNUSABLE, without figures: factors with one cause are shown as one


@dataclass(frozen=True, slots=True)
class Subject:
    """What was probed."""

    name: str
    source: str
    kind: Literal["run", "onnx", "grpc", "timm", "reference"]
    sha256: str
    layer: str
    dim: int
    dtype: str
    preprocessing: str


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network architecture, and where its name comes from."""

    name: str  # as timm knows it
    known_from: Literal["card", "option", "metadata", "file name", "stand-in"]  # stand-in: it is not known at all


@dataclass(frozen=True, slots=True)
class Data:
    """On which frames."""

    name: str
    sha256: str
    n_reference: int
    n_evaluation: int
    num_clusters: int
    cluster_key: str
    resolution: tuple[int, int]
    mask: bool  # a circular mask on the views of geometric factors, the clean ones too
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """For which task: the profile, and what it asked of each factor."""

    profile: str
    sha256: str
    calibrated: bool
    max_level: Mapping[str, int]
    needs: Mapping[str, tuple[Need, ...]]  # one a level
    about: str = ""  # what the profile says that its verdicts mean
    labels: tuple[str, ...] | None = None  # that it reads; none at all where it judges without


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
    encoder: Subject
    data: Data
    settings: Mapping[str, Any]  # seed, bootstrap, shrinkage, probes, quick
    views: tuple[View, ...]
    readings: Readings
    references: Mapping[str, Readings]  # "pixels", "random_init"
    task: Task | None
    verdicts: tuple[Verdict, ...]
    word: Word | None  # the worst over the factors; None without a profile
    random_backbone: Backbone | None = None  # the network that "random_init" is
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
