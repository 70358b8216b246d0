"""`robossl.calibrate`: measure what the verdicts of probes are worth, on the success of policies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from robossl.common.arguments import spelled
from robossl.common.atomic_io import check_folder, write_text
from robossl.common.checks import check_range
from robossl.common.paths import StrPath
from robossl.errors import InputError
from robossl.policies.calibration.cells import join_cells
from robossl.policies.calibration.correlation import correlate
from robossl.policies.calibration.document import to_json
from robossl.policies.calibration.page import write_page
from robossl.policies.calibration.profile_file import profile_text
from robossl.policies.calibration.result import CalibrationResult
from robossl.policies.calibration.thresholds import count_words, fit_halves, fit_thresholds
from robossl.policies.document import read_result
from robossl.probes.document import read_report
from robossl.probes.factors import FACTORS
from robossl.probes.profile import load_profile


def calibrate(
    probes: Sequence[StrPath],
    transfers: Sequence[StrPath],
    *,
    out: StrPath,
    profile: StrPath = "pose-estimation",
    resamples: int = 300,
    seed: int = 0,
) -> CalibrationResult:
    """Compare what probes say about encoders with what their policies lose under the same factors.

    Args:
        probes: Reports of `robossl.probe` on the frames of an environment (report.json, or its folder).
        transfers: Results of `robossl.transfer` in these environments (transfer.json, or its folder).
        out: Folder for the result (calibration.json), its page (index.html) and the calibrated profile.
        profile: The task: a name of the package, or a TOML file.
        resamples: Number of bootstrap resamples of encoders.
        seed: Random seed of the halves of encoders and of the bootstrap.

    Returns:
        The result. It prints as tables.

    Raises:
        InputError: a file cannot be read, or the two sides share no environment, factor or only one encoder.
        ResourceError: the disk is full.

    Example:
        >>> import robossl
        >>> robossl.calibrate([], ["transfer/tiny"], out="calibration/tiny")
        Traceback (most recent call last):
        ...
        robossl.errors.InputError: no file in --probes; name one or more, such as probes/*/*.json
    """
    given = locals()
    paths = {name: tuple(os.fspath(each) for each in given[name]) for name in ("probes", "transfers")}
    command = spelled(calibrate, {**given, **paths, "out": os.fspath(out)}, prog="robossl calibrate")
    for name, each in paths.items():
        if not each:
            raise InputError(f"no file in --{name}; name one or more, such as {name}/*/*.json")
    check_range(10, resamples=resamples)
    check_range(0, seed=seed)
    task = load_profile(Path(profile) if isinstance(profile, os.PathLike) else profile, factors=FACTORS)
    reports = [read_report(Path(each)) for each in paths["probes"]]
    results = [read_result(Path(each)) for each in paths["transfers"]]
    folder = Path(out)
    joined, unmatched = join_cells(reports, results, task)
    fits, cells = fit_halves(joined, task, seed=seed)
    thresholds, remarks = fit_thresholds(joined, task)
    result = CalibrationResult(
        profile=task.name,
        profile_sha256=task.sha256,
        labels=task.labels,
        envs=tuple(sorted({cell.env for cell in cells})),
        encoders=tuple(sorted({cell.encoder for cell in cells})),
        cells=cells,
        unmatched=tuple(unmatched),
        correlations=correlate(cells, resamples=resamples, seed=seed),
        fits=fits,
        thresholds=thresholds,
        remarks=remarks,
        counts=count_words(cells),
        seed=seed,
        command=command,
    )
    check_folder(folder, option="--out")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "calibration.json", to_json(result))
    write_text(folder / f"{task.name}.toml", profile_text(task, result))
    write_page(result, folder)
    return result
