"""`robossl calibrate`: compare probes with policies, and print the tables."""

from __future__ import annotations

from pathlib import Path


def calibrate(
    *,
    probes: tuple[Path, ...],
    transfers: tuple[Path, ...],
    out: Path,
    profile: str = "pose-estimation",
    resamples: int = 300,
    seed: int = 0,
) -> str:
    """Compare what probes say about encoders with what their policies lose under the same factors.

    Says which predictor ranks the loss of policies, fits thresholds on half of the encoders and judges the other half.

    Args:
        probes: Reports of `robossl probe run` on the frames of an environment (report.json, or its folder).
        transfers: Results of `robossl transfer` in these environments (transfer.json, or its folder).
        out: Folder for the result (calibration.json), its page (index.html) and the calibrated profile.
        profile: The task: a name from `robossl probe profiles`, or a TOML file.
        resamples: Number of bootstrap resamples of encoders.
        seed: Random seed of the halves of encoders and of the bootstrap.

    Raises:
        InputError: a file cannot be read, or the two sides share no environment, factor or only one encoder.
    """
    from robossl.policies.calibration import api

    result = api.calibrate(probes, transfers, out=out, profile=profile, resamples=resamples, seed=seed)
    return f"{result}\nlook at {out / 'index.html'}; the calibrated profile is {out / f'{result.profile}.toml'}"
