"""Join probe reports with transfer results: one cell for each encoder, environment, factor and strength."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robossl.errors import InputError
from robossl.policies.calibration.predictors import PREDICTORS
from robossl.policies.calibration.result import LOST_POINTS, JoinedCell, Outcome
from robossl.policies.result import CLEAN, ConditionScore, TransferResult, TransferRow
from robossl.policies.score import paired_interval
from robossl.probes.evidence import Evidence
from robossl.probes.profile import Profile
from robossl.probes.result import Readings, Report
from robossl.probes.verdict import judge_level

LEAST_CLEAN = 0.2  # lower bound of the clean success below which a policy has too little to lose
PIXELS = "pooled pixels"


@dataclass(frozen=True, slots=True)
class ProbedCell:
    """A joined cell with the readings that it was judged on, so that other thresholds can judge it again."""

    cell: JoinedCell
    readings: Readings
    references: Mapping[str, Readings]


def join_cells(
    reports: Sequence[Report], transfers: Sequence[TransferResult], profile: Profile
) -> tuple[list[ProbedCell], list[str]]:
    """Return the cells that both sides have, and a line for each row and report that has no partner.

    A report's references (pixels, random weights) pair with the controls "pooled pixels" and "random BACKBONE".

    Raises:
        InputError: no environment or no encoder is on both sides, or one source stands for two sets of weights.
    """
    probed_envs = {report.data.name for report in reports}
    played_envs = {transfer.settings.env for transfer in transfers}
    if not probed_envs & played_envs:
        raise InputError(
            f"the probes saw {', '.join(sorted(probed_envs))}, the policies {', '.join(sorted(played_envs))}; probe on "
            f"--data env:{min(played_envs)}"
        )
    _check_weights(reports, transfers)
    rows = {(each.settings.env, _name(row)): row for each in transfers for row in each.rows}
    found: dict[tuple[str, str], list[ProbedCell]] = {}
    unmatched = []
    for report in reports:
        for name, readings in _subjects(report):
            key = (report.data.name, name)
            if key in rows and key not in found:
                found[key] = list(_cells(name, report, readings, rows[key], profile))
            elif key not in rows and name == report.encoder.source:
                unmatched.append(f"{name} was probed on {report.data.name}, but no transfer has it")
    for (env, name), row in rows.items():
        if (env, name) not in found and row.kind == "encoder":
            unmatched.append(f"{name} has policies in {env}, but no probe report has it")
    probed = {report.encoder.source for report in reports}
    if not any(name in probed for _, name in found):
        played = sorted({row.source for each in transfers for row in each.rows if row.kind == "encoder"})
        raise InputError(
            f"no encoder is on both sides: probed {', '.join(sorted(probed))}; with policies {', '.join(played)}; "
            "name encoders alike in both commands"
        )
    cells = [cell for each in found.values() for cell in each]
    if not cells:
        raise InputError("no factor and strength is on both sides; give robossl transfer the --factors of the probes")
    return cells, unmatched


def _name(row: TransferRow) -> str:
    return row.source if row.kind == "encoder" else row.name


def _check_weights(reports: Sequence[Report], transfers: Sequence[TransferResult]) -> None:
    """Check that each encoder has the same weights in all reports and results."""
    seen: dict[str, str] = {}
    probed = [(each.encoder.source, each.encoder.sha256) for each in reports]
    played = [(row.source, row.sha256) for each in transfers for row in each.rows]
    for source, sha256 in (*probed, *played):
        if sha256 and seen.setdefault(source, sha256) != sha256:
            raise InputError(
                f"{source} stands for two sets of weights, {seen[source][:12]} and {sha256[:12]}; "
                "measure again what is older, or leave it out"
            )


def _subjects(report: Report) -> Iterator[tuple[str, Readings]]:
    """Return the names that the transfer gives to what a report measured, with their readings."""
    yield report.encoder.source, report.readings
    if "pixels" in report.references:
        yield PIXELS, report.references["pixels"]
    if "random_init" in report.references and report.random_backbone is not None:
        yield f"random {report.random_backbone.name}", report.references["random_init"]


def _cells(name: str, report: Report, readings: Readings, row: TransferRow, profile: Profile) -> Iterator[ProbedCell]:
    clean = next(score for score in row.scores if score.factor == CLEAN)
    probed = {(view.factor, view.level) for view in report.views}
    for score in row.scores:
        if score.factor == CLEAN or (score.factor, score.strength) not in probed:
            continue
        seen = Evidence(readings, report.references, profile, score.factor, score.strength)
        asked = profile.factors.get(score.factor)
        need = asked.needs[score.strength - 1] if asked else "INV"
        values = {name: predict(seen, need, report) for name, predict in PREDICTORS.items()}
        verdict = judge_level(seen)
        drop, low, high = paired_interval(np.array(clean.by_seed, float) - np.array(score.by_seed, float))
        outcome = _outcome(clean, low, high)
        cell = JoinedCell(
            encoder=name,
            env=report.data.name,
            factor=score.factor,
            level=score.strength,
            clean=clean.success,
            shifted=score.success,
            drop=drop,
            drop_low=low,
            drop_high=high,
            share_kept=None if outcome == "too low" else score.success / clean.success,
            outcome=outcome,
            predictors=values,
            word=verdict.word if verdict else None,
            held_out_word=None,
        )
        yield ProbedCell(cell, readings, report.references)


def _outcome(clean: ConditionScore, low: float, high: float) -> Outcome:
    if clean.low < LEAST_CLEAN:
        return "too low"
    return "lost" if low > LOST_POINTS else "kept" if high < LOST_POINTS else "open"
