"""Read task profiles in TOML. A profile says what a task needs of each factor (change of the picture or scene).

The need INV means that features must ignore the factor. EQUI means that they must follow it, INFO that they must
contain it, and "-" that the task needs nothing. The package's profiles are in `profiles/`. Users can write others:

```toml
schema = "robossl.profile/1"
name = "pose-estimation"
title = "Pose estimation and servoing"
about = "One or two sentences."
version = 1
calibrated = false                 # whether the thresholds were set from measured drops of a policy's success
labels = ["pose", "point"]         # in order of preference; leave the line out to judge without labels
[thresholds]                       # fields of `Thresholds` that differ from the defaults
[calibration]                      # optional; `robossl calibrate` writes it: what each verdict has meant for policies
[factors.rotation]
need = "EQUI"                      # INV, EQUI, INFO or "-"; or five of them, one for each level
max_level = 3                      # the highest level that is judged
```
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from robossl.common.checks import check_range
from robossl.common.config import from_mapping
from robossl.common.suggest import suggest_name
from robossl.errors import InputError
from robossl.measure.figures import clusters_to_show
from robossl.probes.factors import resolve_factor
from robossl.probes.result import CalibrationRecord, Need, WordRecord

FOLDER = Path(__file__).parent / "profiles"
LEVELS = 5
MAX_LEVEL = 3
MIN_CLUSTERS = 20


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds of the rules that give verdicts (not yet calibrated on measured drops of a policy's success)."""

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
    # Smallest score above chance at which a label is judged. It is compared with the lower bound of the score that the
    # label's head has on clean frames.
    readable: float = 0.15
    min_clusters: int = MIN_CLUSTERS

    def __post_init__(self) -> None:
        bounds = asdict(self)
        if bounds.pop("min_clusters") < MIN_CLUSTERS:
            raise InputError(
                f"min_clusters must be {MIN_CLUSTERS} or more, got {self.min_clusters}; intervals over fewer are too "
                "narrow"
            )
        check_range(0, 1, **bounds)

    def least_clusters(self, *, has_label: bool) -> float:
        """Return how many clusters (such as episodes) must be judged before a factor can be SAFE.

        Without a label, the lower bound of R@1 (share of correct retrievals) must reach `inv_r1`. With few clusters,
        this is impossible, even if all retrievals are correct.
        """
        return self.min_clusters if has_label else max(self.min_clusters, clusters_to_show(self.inv_r1))


@dataclass(frozen=True, slots=True)
class FactorNeed:
    """What a task needs of one factor at each of the five levels, and the highest level that is judged."""

    needs: tuple[Need, Need, Need, Need, Need]
    max_level: int = MAX_LEVEL


@dataclass(frozen=True, slots=True)
class Profile:
    """What a task needs: its labels, its need of each factor, and the bounds of the rules that give verdicts."""

    name: str
    title: str
    about: str
    version: int
    calibrated: bool
    labels: tuple[str, ...]  # names of labels that the task reads, in order of preference; may be empty
    factors: Mapping[str, FactorNeed]
    thresholds: Thresholds
    sha256: str
    calibration: CalibrationRecord | None = None  # what each verdict has meant for policies


@dataclass(frozen=True, slots=True)
class _FactorTable:
    """The TOML table of one factor in a profile's file."""

    need: str | tuple[str, ...]
    max_level: int = MAX_LEVEL

    def __post_init__(self) -> None:
        allowed = get_args(Need)
        if len(self.needs) != LEVELS or not set(self.needs) <= set(allowed):
            given = list(self.need) if isinstance(self.need, tuple) else self.need
            raise InputError(
                f"need must be one of {', '.join(allowed)}, or five of them, one for each level; got {given!r}"
            )
        check_range(1, LEVELS, max_level=self.max_level)

    @property
    def needs(self) -> Any:
        return (self.need,) * LEVELS if isinstance(self.need, str) else self.need


@dataclass(frozen=True, slots=True)
class _CalibrationTable:
    """The TOML table of a profile's calibration, as `robossl calibrate` writes it."""

    environments: tuple[str, ...]
    encoders: int
    points: int
    words: dict[str, WordRecord]


@dataclass(frozen=True, slots=True)
class _ProfileFile:
    """The content of a profile's TOML file."""

    schema: Literal["robossl.profile/1"]
    name: str
    title: str
    about: str
    version: int
    calibrated: bool
    factors: dict[str, _FactorTable]
    labels: tuple[str, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    calibration: _CalibrationTable | None = None

    def __post_init__(self) -> None:
        if not self.factors:
            raise InputError("factors is empty; say what the task needs of at least one")


def profile_names() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem.replace("_", "-") for path in FOLDER.glob("*.toml"))


def load_profile(name_or_path: str | Path, *, factors: Collection[str]) -> Profile:
    """Load a profile of the package by its name, or any profile from a TOML file.

    Args:
        name_or_path: A name such as `pose-estimation`, or a path that ends in .toml.
        factors: Names of all known factors.

    Raises:
        InputError: the profile does not exist or is not TOML, a key is unknown or missing, or a value is not allowed.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        names = profile_names()
        if str(name_or_path).replace("_", "-") not in names:
            known = suggest_name("profile", str(name_or_path), names)
            raise InputError(f"{known}, or pass a TOML file of your own (a name that ends in .toml)")
        path = FOLDER / f"{str(name_or_path).replace('-', '_')}.toml"
    try:
        data = path.read_bytes()
        content = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the profile {path}: {error.strerror}; pass a TOML file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: this is not valid TOML: {error}") from error
    try:
        return _build(from_mapping(content, _ProfileFile), factors, hashlib.sha256(data).hexdigest())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _build(file: _ProfileFile, factors: Collection[str], sha256: str) -> Profile:
    for name, table in file.factors.items():
        if name not in factors:
            raise InputError(suggest_name("factor", name, factors))
        last = min(table.max_level, resolve_factor(name).num_levels)
        if set(table.needs) != {"-"} and set(table.needs[:last]) == {"-"}:
            raise InputError(
                f"factors.{name} has no need at the judged strengths 1 to {last}, got {list(table.needs)}; "
                "give one, or leave the factor out"
            )
    return Profile(
        name=file.name,
        title=file.title,
        about=file.about,
        version=file.version,
        calibrated=file.calibrated,
        labels=file.labels,
        factors={name: FactorNeed(table.needs, table.max_level) for name, table in file.factors.items()},
        thresholds=file.thresholds,
        sha256=sha256,
        calibration=_record(file.calibration),
    )


def _record(table: _CalibrationTable | None) -> CalibrationRecord | None:
    if table is None:
        return None
    return CalibrationRecord(table.environments, table.encoders, table.points, table.words)
