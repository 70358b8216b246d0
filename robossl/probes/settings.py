"""Settings of a probe: how much it measures, and at which levels (strengths) of each factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robossl.probes.factors import resolve_factor
from robossl.probes.frames import Label, ProbeFrames
from robossl.probes.plan import RenderPlan
from robossl.probes.profile import MAX_LEVEL, Profile
from robossl.probes.views import RenderJob


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How much a probe measures.

    Args:
        n_reference: Number of frames on which statistics and heads are fitted.
        n_evaluation: Number of frames that are judged.
        levels: Levels (strengths) that are measured. For each need of the task (such as INV), the severest judged level
            with this need is added.
        num_resamples: Number of bootstrap resamples.
        num_shuffles: Number of fits to shuffled parameters, whose scores give the range of chance scores.
        mlp: Decode with an MLP in addition to a linear probe.
        decode_all: Also decode factors whose need is neither EQUI (follow) nor INFO (contain), at their severest judged
            level.
        seed: Seed of all random choices.
    """

    n_reference: int = 2000
    n_evaluation: int = 500
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)
    num_resamples: int = 1000
    num_shuffles: int = 99
    mlp: bool = True
    decode_all: bool = True
    seed: int = 0


QUICK = ProbeSettings(n_reference=300, n_evaluation=200, levels=(1, 3), num_shuffles=20, mlp=False, decode_all=False)


def choose_levels(
    factors: Sequence[str], profile: Profile | None, settings: ProbeSettings
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return for each factor the levels (strengths) that are measured, and the levels at which it is decoded."""
    shown: dict[str, tuple[int, ...]] = {}
    decoded: dict[str, tuple[int, ...]] = {}
    for name in factors:
        most = resolve_factor(name).num_levels
        asked = profile.factors.get(name) if profile else None
        judged_at = {need: level for level, need in enumerate(asked.needs[: asked.max_level], 1)} if asked else {}
        hardest_of_each = {min(level, most) for need, level in judged_at.items() if need != "-"}
        wanted = {level for level in settings.levels if level <= most} | hardest_of_each
        shown[name] = tuple(sorted(wanted)) or (most,)
        hardest = asked.max_level if asked else MAX_LEVEL
        judged = [level for level in shown[name] if level <= hardest] or [shown[name][0]]
        followed = [level for level in judged if asked and asked.needs[level - 1] in ("EQUI", "INFO")]
        decoded[name] = tuple(followed) or ((judged[-1],) if settings.decode_all else ())
    return shown, decoded


def choose_labels(frames: ProbeFrames, profile: Profile | None) -> dict[str, Label]:
    """Return those labels of the frames that the task reads, in the task's order; without a task, return all labels."""
    names = profile.labels if profile else tuple(frames.labels)
    return {name: frames.labels[name] for name in names if name in frames.labels}


def choose_dense_views(plan: RenderPlan, profile: Profile | None) -> set[RenderJob]:
    """Return the render jobs for which feature maps are kept.

    These jobs render each factor that moves points at its severest judged level, and the clean frames to compare with.
    """
    shown = [job for job in plan.jobs if job.draw == "level" and job.factor != "floor"]
    chosen: dict[str, RenderJob] = {}
    for job in shown:
        asked = profile.factors.get(job.factor) if profile else None
        if resolve_factor(job.factor).warp is not None and job.level <= (asked.max_level if asked else MAX_LEVEL):
            chosen[job.factor] = job
    bases = {RenderJob(resolve_factor(name).base, 0, "clean", "evaluation") for name in chosen}
    return {*chosen.values(), *bases}
