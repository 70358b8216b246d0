"""What a probe renders: which views of which frames, how large they are and about how long they take."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robossl.errors import InputError
from robossl.probes.factors import resolve_factor
from robossl.probes.frames import ProbeFrames, UnavailableError
from robossl.probes.views import Part, RenderJob, Views, render_frames

FLOOR_JOB = RenderJob("floor", 1, "level", "evaluation")
_TRIED = 4  # frames a factor is tried on
PARTS: tuple[Part, Part] = ("reference", "evaluation")


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """The jobs in the order they are rendered.

    Args:
        jobs: clean views first.
        num_bytes: of all their files.
        seconds: about how long the missing ones take, from a few frames of each factor.
        unavailable: factors that these frames cannot show, and why.
    """

    jobs: tuple[RenderJob, ...]
    num_bytes: int
    seconds: float
    unavailable: Mapping[str, str]


def plan_views(
    views: Views, levels: Mapping[str, Sequence[int]], *, decode: Mapping[str, Sequence[int]] | None = None
) -> RenderPlan:
    """Plan the clean views of both parts, the floor, the levels of each factor, and the draws that are read back.

    Args:
        views: of the frames and their split.
        levels: of each factor, rendered for the evaluation.
        decode: levels of each factor whose strengths are spread to be read back, rendered for both parts; they also
            serve to train heads under a factor. Factors of kinds have one such draw whatever the level.

    Raises:
        InputError: an unknown factor or a level that it has not.
    """
    decode = decode or {}
    for name, asked in (*levels.items(), *decode.items()):
        known = range(1, resolve_factor(name).num_levels + 1)
        wrong = next((level for level in asked if level not in known), None)
        if wrong is not None:
            raise InputError(f"{name} has levels 1 to {known[-1]}, got {wrong}")
    seconds, unavailable = _tried(views.frames, dict.fromkeys(("floor", *levels, *decode)))
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
    """The job whose strengths are read back at a level."""
    return RenderJob(factor, 1 if resolve_factor(factor).classes else level, "decode", part)


def find_unavailable(frames: ProbeFrames, names: Sequence[str]) -> dict[str, str]:
    """Of some factors those that these frames cannot show, and why."""
    return _tried(frames, dict.fromkeys(names))[1]


def _tried(frames: ProbeFrames, names: Mapping[str, None]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds a frame of each factor, and which cannot be shown."""
    at = np.unique(np.linspace(0, len(frames.clusters) - 1, _TRIED).astype(np.int64))
    seconds: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for name in names:
        factor = resolve_factor(name)
        values = factor.draw((factor.num_levels + 1) // 2, at, seed=0, draw="level")
        start = time.perf_counter()
        try:
            render_frames(factor, frames, at, values)
        except UnavailableError as error:
            unavailable[name] = str(error)
        seconds[name] = (time.perf_counter() - start) / len(at)
    return seconds, unavailable
