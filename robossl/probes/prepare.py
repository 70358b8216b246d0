"""Choose the frames of a probe and their transformations, before any encoder is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robossl.errors import InputError
from robossl.probes.frames import Label, ProbeFrames
from robossl.probes.outlook import make_outlook
from robossl.probes.plan import RenderPlan, find_unavailable, plan_views
from robossl.probes.profile import Profile, Thresholds
from robossl.probes.settings import ProbeSettings, choose_labels, choose_levels
from robossl.probes.split import split_frames
from robossl.probes.views import Views


@dataclass(frozen=True)
class ProbeInputs:
    """All inputs of a probe except its encoder: frames, views (transformed frames), labels and the profile."""

    views: Views
    plan: RenderPlan
    profile: Profile | None
    settings: ProbeSettings
    # Factors that cannot be rendered for these frames, with the reason. Factors that the run leaves out are included.
    unavailable: Mapping[str, str]
    factors: tuple[str, ...]
    use_labels: bool

    @cached_property
    def labels(self) -> dict[str, Label]:
        """The labels to which heads are fitted. To get them, an environment plays its scenes again."""
        return choose_labels(self.views.frames, self.profile) if self.use_labels else {}

    @property
    def labels_text(self) -> str:
        """Text that names the labels to which heads are fitted, or says why there are none."""
        there = ", ".join(self.views.frames.labels)
        if self.labels or not there:
            return ", ".join(self.labels) or "none"
        if not self.use_labels or (self.profile and not self.profile.labels):
            return f"none are read (there are: {there})"
        return f"none of the labels that the profile reads (there are: {there}; --columns names one)"

    def outlook(self) -> list[str]:
        """Return text lines that name the factors on which no encoder can be SAFE; an empty list without a profile."""
        if self.profile is None:
            return []
        found = make_outlook(
            self.views.frames,
            self.views.split,
            self.profile,
            factors=self.factors,
            labels=self.labels,
            unavailable=self.unavailable,
        )
        return found.lines()


def prepare(
    frames: ProbeFrames,
    *,
    profile: Profile | None,
    factors: Sequence[str],
    cache: Path,
    settings: ProbeSettings,
    use_labels: bool = True,
) -> ProbeInputs:
    """Choose the frames and plan their views; render and write nothing.

    Args:
        frames: Frames to probe with.
        profile: The task; None for a report without verdicts.
        factors: Factors to measure.
        cache: Folder of views (transformed frames) and features.
        settings: How much to measure, such as the number of frames.
        use_labels: Whether to fit heads to the labels of the frames.

    Raises:
        InputError: there are too few frames, all frames are equal, or none of the factors can be rendered for them.
    """
    split = split_frames(
        frames,
        n_reference=settings.n_reference,
        n_evaluation=settings.n_evaluation,
        thresholds=profile.thresholds if profile else Thresholds(),
        seed=settings.seed,
    )
    views = Views(frames, split, cache / "views", seed=settings.seed)
    levels, decoded = choose_levels(factors, profile, settings)
    plan = plan_views(views, levels, decode=decoded)
    if all(name in plan.unavailable for name in factors):
        whys = ", ".join(dict.fromkeys(plan.unavailable.values()))
        raise InputError(
            f"{frames.name} can show none of {', '.join(factors)} ({whys}); name other --factors, another --profile or "
            "other --data"
        )
    others = [name for name in profile.factors if name not in factors] if profile else []
    unavailable = {**find_unavailable(frames, others), **plan.unavailable}
    return ProbeInputs(views, plan, profile, settings, unavailable, tuple(factors), use_labels)
