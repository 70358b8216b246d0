"""Predictors of a policy's success, each a function of the probe's evidence; higher predicts less loss.

To add one, write a function and add a line to `PREDICTORS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from robossl.probes.evidence import Evidence
from robossl.probes.result import Need, Report

Predictor = Callable[[Evidence, Need, Report], float | None]
PROXY, STRENGTH, RETENTION = "state prediction", "strength", "retention"


def head_of(need: Need) -> str:
    """Return the head whose retention decides on a need: "same" for INV, "clean" for all others."""
    return "same" if need == "INV" else "clean"


def retention(seen: Evidence, need: Need, report: Report) -> float | None:
    """Return the share of its clean score that the verdict's head keeps."""
    figure = seen.retention(head_of(need))[1]
    return None if figure is None else figure.value


def state_prediction(seen: Evidence, need: Need, report: Report) -> float | None:
    """Return the score of the verdict's head on transformed frames (state-prediction proxy, arXiv:2602.04880)."""
    label = seen.retention(head_of(need))[0]
    wanted = (label, seen.factor, seen.level, head_of(need))
    found = (r for r in seen.readings.retentions if (r.label, r.factor, r.level, r.head) == wanted)
    return next((each.transformed for each in found), None)


def cell_metric(metric: str, seen: Evidence, need: Need, report: Report) -> float | None:
    """Return a metric of the features under the factor."""
    return seen.cell(metric).value


def undecodability(seen: Evidence, need: Need, report: Report) -> float | None:
    """Return minus the score at which the factor is decoded from transformed frames alone."""
    return None if seen.decoding.value is None else -seen.decoding.value


def pixel_similarity(seen: Evidence, need: Need, report: Report) -> float | None:
    """Return the structural similarity (SSIM) of transformed and clean frames; equal for all encoders."""
    found = (view.ssim for view in report.views if (view.factor, view.level) == (seen.factor, seen.level))
    return next(found, None)


def strength_alone(seen: Evidence, need: Need, report: Report) -> float | None:
    """Return minus the strength; it needs no probe."""
    return -float(seen.level)


PREDICTORS: dict[str, Predictor] = {
    RETENTION: retention,
    PROXY: state_prediction,
    **{name: partial(cell_metric, name) for name in ("nis_w", "nis", "eric", "r1", "auc")},
    "not decoded": undecodability,
    "pixel similarity": pixel_similarity,
    STRENGTH: strength_alone,
}
