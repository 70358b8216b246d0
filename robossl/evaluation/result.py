"""Results of an evaluation: frozen dataclasses that are written as JSON and read back for the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from robossl.errors import InputError, reason
from robossl.evaluation.task import ClassCount
from robossl.measure.bootstrap import Interval

SCHEMA = "robossl.evaluation/1"
Kind = Literal["encoder", "random", "pixels", "majority"]


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One row of a table: an encoder or a baseline, with its accuracies in [0, 1]."""

    name: str
    kind: Kind
    accuracy: Interval  # balanced accuracy of episodes, averaged over seeds
    frame_accuracy: Interval  # balanced accuracy of single frames
    recall: dict[str, float]  # share of each class's episodes that are classified correctly
    minus: dict[str, Interval]  # paired difference from each baseline, by the baseline's name; empty for a baseline
    details: tuple[Mapping[str, float | int | bool | str], ...]  # settings and choices of the protocol, for each seed


@dataclass(frozen=True, slots=True)
class Result:
    """The scores for one label, one test split and one protocol."""

    protocol: str
    label: str
    train_split: str
    test_split: str
    classes: tuple[ClassCount, ...]
    dropped: tuple[ClassCount, ...]
    num_train_episodes: int
    num_test_episodes: int
    num_test_frames: int
    validated_by: str  # "day" or "episode": the unit that cross-validation never divides
    rows: tuple[ScoreRow, ...]

    @property
    def title(self) -> str:
        """Label, split and protocol in a few words."""
        return f"{self.label} on {self.test_split} ({self.protocol})"

    def sentences(self) -> list[str]:
        """Return a sentence for each comparison of an encoder with a baseline, in points of balanced accuracy."""
        return [
            f"{self.title}: {row.name} is {_points(difference)} {reference}{_verdict(difference)}."
            for row in self.rows
            for reference, difference in row.minus.items()
        ]


def _points(difference: Interval) -> str:
    points = round(100 * difference.estimate, 1)
    return f"{abs(points)} points {'above' if points > 0 else 'below'}" if points else "level with"


def _verdict(difference: Interval) -> str:
    if not difference.is_defined:
        return "; a class has a single episode, so there is no interval and nothing is shown"
    bounds = f" [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    if difference.excludes_zero:
        return f"{bounds}: the interval excludes zero"
    return f"{bounds}: the interval includes zero, so these episodes do not tell the two apart"


@dataclass(frozen=True, slots=True, repr=False)
class Scores:
    """The scores of encoders and baselines: one result for each label, test split and protocol.

    Example:
        >>> import robossl
        >>> scores = robossl.evaluate("runs/tiny", store="stores/clips", label="scene", min_episodes=1, bootstrap=100)
        >>> scores
        Scores(scene on val (knn))
        >>> {row.name: row.accuracy.estimate for row in scores.results[0].rows}["majority class"]
        0.5
    """

    about: dict[str, Any]  # command, settings, seeds, versions, hashes of encoders and store
    results: tuple[Result, ...]
    left_out: tuple[str, ...]  # sentences about labels that were left out, and warnings
    schema: str = SCHEMA

    def __repr__(self) -> str:
        return f"Scores({'; '.join(result.title for result in self.results)})"

    def __str__(self) -> str:
        """Return the tables and notes as text, as `robossl evaluate` prints them."""
        from rich.console import Console

        from robossl.evaluation.table import print_tables

        console = Console(width=120)
        with console.capture() as captured:
            print_tables(self, console)
        return captured.get()

    def _repr_html_(self) -> str:
        from robossl.evaluation.table import html_tables

        return html_tables(self)

    def to_json(self) -> str:
        """Return the scores as JSON text. Intervals become objects; `sentences` are added for human readers."""
        content = asdict(self)
        for result, written in zip(self.results, content["results"], strict=True):
            written["sentences"] = result.sentences()
        return json.dumps(_named(content), indent=1, ensure_ascii=False) + "\n"


def _named(value: Any) -> Any:
    if isinstance(value, Interval):
        bounds = value._asdict() if value.is_defined else {"estimate": value.estimate, "low": None, "high": None}
        return bounds | {"excludes_zero": value.excludes_zero}
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, list | tuple) else value


def read_evaluation(path: Path) -> Scores:
    """Read a file that `to_json` wrote.

    Raises:
        InputError: the file is not an evaluation, or has a schema that this version does not know.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
        if schema != SCHEMA:
            raise InputError(f"{path} has schema {schema!r}, this version reads {SCHEMA!r}; evaluate again")
        about = dict(content["about"])
        if not all(isinstance(each, dict) for each in about.get("encoders", ())):
            raise TypeError("about.encoders must be mappings")
        return Scores(about, tuple(map(_result, content["results"])), tuple(map(str, content["left_out"])))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise InputError(f"{path} is not an evaluation ({problem}); write one with robossl evaluate --out") from error


def _result(content: dict[str, Any]) -> Result:
    values = {key: value for key, value in content.items() if key != "sentences"}
    values |= {key: int(value) for key, value in values.items() if key.startswith("num_")}
    values |= {key: tuple(ClassCount(**count) for count in content[key]) for key in ("classes", "dropped")}
    return Result(**values | {"rows": tuple(map(_row, content["rows"]))})


def _row(content: dict[str, Any]) -> ScoreRow:
    if content["kind"] not in get_args(Kind):
        raise ValueError(f"kind {content['kind']!r} of a row is none of {', '.join(get_args(Kind))}")
    values = content | {key: _interval(content[key]) for key in ("accuracy", "frame_accuracy")}
    minus = {name: _interval(difference) for name, difference in content["minus"].items()}
    return ScoreRow(**values | {"minus": minus, "details": tuple(content["details"])})


def _interval(content: dict[str, Any]) -> Interval:
    bounds = (math.nan if content[key] is None else float(content[key]) for key in ("low", "high"))
    return Interval(float(content["estimate"]), *bounds)
