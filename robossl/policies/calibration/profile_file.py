"""Write a profile as TOML, with fitted thresholds and the record of what each verdict has meant."""

from __future__ import annotations

import json
from dataclasses import asdict

from robossl.policies.calibration.result import LOST_POINTS, CalibrationResult
from robossl.policies.calibration.thresholds import with_thresholds
from robossl.probes.profile import Profile, Thresholds


def profile_text(profile: Profile, result: CalibrationResult) -> str:
    """Return the next version of a profile as TOML, with the thresholds fitted on all encoders and held-out counts.

    It counts as calibrated if some threshold was fitted.
    """
    limits = asdict(with_thresholds(profile, result.thresholds).thresholds)
    changed = {name: value for name, value in limits.items() if value != asdict(Thresholds())[name]}
    lines = [
        'schema = "robossl.profile/1"',
        *(f"{name} = {_text(getattr(profile, name))}" for name in ("name", "title", "about")),
        f"version = {profile.version + 1}",
        f"calibrated = {str(profile.calibrated or bool(result.thresholds)).lower()}",
        f"labels = {_text(list(profile.labels))}",
        *(["", "[thresholds]", *(f"{name} = {value}" for name, value in changed.items())] if changed else []),
        "",
        "[calibration]",
        f"environments = {_text(list(result.envs))}",
        f"encoders = {len(result.encoders)}",
        f"points = {round(100 * LOST_POINTS)}",
        "",
        "[calibration.words]",
        *(
            f"{_text(each.word)} = {{ kept = {each.kept}, lost = {each.lost}, open = {each.open}, "
            f"mean_drop = {100 * each.mean_drop:.0f} }}"
            for each in result.counts
            if each.thresholds == "fitted"
        ),
    ]
    for name, asked in profile.factors.items():
        need = asked.needs[0] if len(set(asked.needs)) == 1 else list(asked.needs)
        lines += ["", f"[factors.{_text(name)}]", f"need = {_text(need)}", f"max_level = {asked.max_level}"]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    """Return a string or list of strings as TOML; JSON's basic strings and lists are TOML too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
