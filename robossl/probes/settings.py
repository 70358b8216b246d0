"""Settings: how much is measured, and of which strengths."""

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
    """How much is measured.

    Args:
        n_reference: Frames that statistics and heads are fitted on.
        n_evaluation: Frames that are judged.
        levels: Strengths that are shown, beside the hardest that a profile judges of each of its needs.
        num_resamples: Of the bootstrap.
        num_shuffles: Of a parameter, for the range of chance.
        mlp: Decode with an MLP too, and not with a linear probe alone.
        decode_all: Read back every factor at the strength that is judged, not only those the task must follow or know.
        seed: Of all that is drawn.
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
    """The strengths of each factor that are shown, and those that are read back."""
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
    """Those the task reads, in its order; all of them where there is no task."""
    names = profile.labels if profile else tuple(frames.labels)
    return {name: frames.labels[name] for name in names if name in frames.labels}


def mapped(plan: RenderPlan, profile: Profile | None) -> set[RenderJob]:
    """Views whose feature maps are looked at: the severest that is judged of every factor that moves points."""
    shown = [job for job in plan.jobs if job.draw == "level" and job.factor != "floor"]
    chosen: dict[str, RenderJob] = {}
    for job in shown:
        asked = profile.factors.get(job.factor) if profile else None
        if resolve_factor(job.factor).warp is not None and job.level <= (asked.max_level if asked else MAX_LEVEL):
            chosen[job.factor] = job
    bases = {RenderJob(resolve_factor(name).base, 0, "clean", "evaluation") for name in chosen}
    return {*chosen.values(), *bases}
