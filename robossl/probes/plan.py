"""Plan the views (transformed frames) that a probe renders: their order, number of bytes and approximate time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robossl.errors import InputError
from robossl.probes.factor_checks import check_clean
from robossl.probes.factors import FACTORS, resolve_factor
from robossl.probes.frames import ProbeFrames, ViewUnavailableError
from robossl.probes.views import Part, RenderJob, Views, apply_factor, render_clean, render_frames

FLOOR_JOB = RenderJob("floor", 1, "level", "evaluation")
_NUM_TRIED = 4  # number of frames on which each factor is tried, to measure its rendering time
PARTS: tuple[Part, Part] = ("reference", "evaluation")


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """What a probe renders, in which order, and how many bytes and seconds that takes.

    Args:
        jobs: The views (transformed frames) to render: a job for each file, in the order of rendering. Clean views come
            first.
        num_bytes: Size of the files of all jobs.
        seconds: Estimated time to render the missing files. It is measured on a few frames for each factor.
        unavailable: Factors that cannot be rendered for these frames, with the reason.
    """

    jobs: tuple[RenderJob, ...]
    num_bytes: int
    seconds: float
    unavailable: Mapping[str, str]


def plan_views(
    views: Views, levels: Mapping[str, Sequence[int]], *, decode: Mapping[str, Sequence[int]] | None = None
) -> RenderPlan:
    """Plan the clean views, the views with weak noise, the levels of each factor, and the views for decoding.

    Args:
        views: The views (transformed frames). Their frames are split into two parts: reference and judged frames.
        levels: For each factor, the levels at which the judged frames are rendered.
        decode: For each factor, the levels for which probes learn to predict the factor's strength from features. A
            level is the largest strength: frames of both parts are rendered with different strengths up to it. Heads
            that learn from transformed frames use these views too. A factor with classes (kinds of change instead of
            strengths) is rendered once for all its levels.

    Raises:
        InputError: a factor or level is unknown, or a factor renders pixels of a wrong type or shape.
    """
    decode = decode or {}
    for name, asked in (*levels.items(), *decode.items()):
        known = range(1, resolve_factor(name).num_levels + 1)
        wrong = next((level for level in asked if level not in known), None)
        if wrong is not None:
            raise InputError(f"{name} has levels 1 to {known[-1]}, got {wrong}")
    seconds, unavailable = _try_factors(views.frames, dict.fromkeys(("floor", *levels, *decode)))
    shown = [name for name in dict.fromkeys((*levels, *decode)) if name not in unavailable]
    bases = dict.fromkeys(("plain", *(resolve_factor(name).base for name in shown)))
    jobs = [RenderJob(base, 0, "clean", part) for base in bases for part in PARTS]
    jobs.append(FLOOR_JOB)
    for name in shown:
        jobs += [RenderJob(name, level, "level", "evaluation") for level in levels.get(name, ())]
        jobs += [make_decode_job(name, level, part) for level in decode.get(name, ()) for part in PARTS]
    jobs = list(dict.fromkeys(jobs))
    left = sum(seconds.get(job.factor, seconds["floor"]) * views.num_missing([job]) for job in jobs)
    return RenderPlan(tuple(jobs), views.num_bytes(jobs), left, unavailable)


def make_decode_job(factor: str, level: int, part: Part) -> RenderJob:
    """Return the job that renders a factor at different strengths up to a level.

    A probe later decodes the strength from the features of these views (transformed frames).
    """
    return RenderJob(factor, 1 if resolve_factor(factor).classes else level, "decode", part)


def find_unavailable(frames: ProbeFrames, names: Sequence[str]) -> dict[str, str]:
    """Return the factors that cannot be rendered for these frames, with the reason."""
    return _try_factors(frames, dict.fromkeys(names))[1]


def _try_factors(frames: ProbeFrames, names: Mapping[str, None]) -> tuple[dict[str, float], dict[str, str]]:
    """Render a few frames; return each factor's time in seconds per frame, and why some factors cannot be rendered.

    Also check that the factors of plugins change nothing at their clean strength.
    """
    at = np.unique(np.linspace(0, len(frames.clusters) - 1, _NUM_TRIED).astype(np.int64))
    seconds: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for name in names:
        factor = resolve_factor(name)
        values = factor.draw((factor.num_levels + 1) // 2, at, seed=0, draw="level")
        start = time.perf_counter()
        try:
            render_frames(factor, frames, at, values)
            seconds[name] = (time.perf_counter() - start) / len(at)
            if name not in FACTORS.built_in and factor.family in ("photometric", "geometric"):
                views = apply_factor(factor, frames, at, factor.clean_values(len(at)))
                check_clean(views, factor, render_clean(frames, at, factor.base))
        except ViewUnavailableError as error:
            unavailable[name] = str(error)
    return seconds, unavailable
