"""Plan the views that a probe renders: their order, size and approximate time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robossl.errors import InputError
from robossl.probes.factors import resolve_factor
from robossl.probes.frames import ProbeFrames, ViewUnavailableError
from robossl.probes.views import Part, RenderJob, Views, render_frames

FLOOR_JOB = RenderJob("floor", 1, "level", "evaluation")
_NUM_TRIED = 4  # frames that each factor is tried on
PARTS: tuple[Part, Part] = ("reference", "evaluation")


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """The jobs in the order of rendering.

    Args:
        jobs: clean views first.
        num_bytes: size of all their files.
        seconds: estimate for the missing views, from a few frames of each factor.
        unavailable: factors that these frames cannot show, with the reason.
    """

    jobs: tuple[RenderJob, ...]
    num_bytes: int
    seconds: float
    unavailable: Mapping[str, str]


def plan_views(
    views: Views, levels: Mapping[str, Sequence[int]], *, decode: Mapping[str, Sequence[int]] | None = None
) -> RenderPlan:
    """Plan the clean views of both parts, the noise floor, the levels of each factor, and the draws for decoding.

    Args:
        views: views of the frames and their split.
        levels: levels of each factor, rendered for the judged frames.
        decode: levels of each factor with strengths spread for decoding, rendered for both parts; they also train
            heads under a factor. A factor with classes has one such draw for all levels.

    Raises:
        InputError: an unknown factor or level.
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
    """Return the job whose strengths are decoded at a level."""
    return RenderJob(factor, 1 if resolve_factor(factor).classes else level, "decode", part)


def find_unavailable(frames: ProbeFrames, names: Sequence[str]) -> dict[str, str]:
    """Return the factors that these frames cannot show, with the reason."""
    return _try_factors(frames, dict.fromkeys(names))[1]


def _try_factors(frames: ProbeFrames, names: Mapping[str, None]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the seconds for each frame of a factor, and the factors that cannot be shown."""
    at = np.unique(np.linspace(0, len(frames.clusters) - 1, _NUM_TRIED).astype(np.int64))
    seconds: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for name in names:
        factor = resolve_factor(name)
        values = factor.draw((factor.num_levels + 1) // 2, at, seed=0, draw="level")
        start = time.perf_counter()
        try:
            render_frames(factor, frames, at, values)
        except ViewUnavailableError as error:
            unavailable[name] = str(error)
        seconds[name] = (time.perf_counter() - start) / len(at)
    return seconds, unavailable
