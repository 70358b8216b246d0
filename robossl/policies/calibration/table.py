"""A calibration as text: the predictors, the thresholds, and what each verdict has meant."""

from __future__ import annotations

from collections.abc import Mapping

from robossl.policies.calibration.result import CalibrationResult, Correlation, Estimate


def to_text(result: CalibrationResult) -> str:
    """Return the tables of a calibration as text."""
    return "\n".join(
        [describe_cells(result), *_correlations(result), "", *describe_thresholds(result), "", *describe_counts(result)]
    )


def overall(result: CalibrationResult, target: str = "share kept") -> list[Correlation]:
    """Return the correlations over all factors with one target, the best Spearman first."""
    found = [each for each in result.correlations if each.factor is None and each.target == target]
    return sorted(found, key=lambda each: -2.0 if each.spearman.value is None else each.spearman.value, reverse=True)


def describe_cells(result: CalibrationResult) -> str:
    """Return lines about what was joined and what was left out."""
    low = [each for each in result.cells if each.outcome == "too low"]
    lines = [
        f"{len(result.cells)} cells of {len(result.encoders)} encoders and controls in {', '.join(result.envs)}; "
        f"profile {result.profile}; 95 % intervals over encoders",
        *result.unmatched,
    ]
    if low:
        names = sorted({f"{each.encoder} in {each.env}" for each in low})
        lines.append(f"{len(low)} cells left out of drops, clean success too low: {', '.join(names)}")
    return "\n".join(lines)


def describe_thresholds(result: CalibrationResult) -> list[str]:
    """Return lines about the fitted thresholds."""
    lines = [f"thresholds, fitted on all encoders: {_values(result.thresholds)}"]
    lines += [f"  {remark}" for remark in result.remarks]
    for fit in result.fits:
        lines.append(f"  fitted on {', '.join(fit.fitted_on)}: {_values(fit.thresholds)}")
        lines += [f"    {remark}" for remark in fit.remarks]
    return lines


def _values(thresholds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in thresholds.items()) or "as in the profile"


def describe_counts(result: CalibrationResult) -> list[str]:
    """Return lines about what each verdict has meant, and how many of the kept cells are SAFE."""
    lines = []
    for kind in ("today", "fitted"):
        counts = [each for each in result.counts if each.thresholds == kind]
        name = "today's thresholds" if kind == "today" else "fitted thresholds, encoders held out"
        lines.append(f"{name:<40} kept  lost  open  mean drop")
        lines += [
            f"  {each.word:<38} {each.kept:>4}  {each.lost:>4}  {each.open:>4}  {100 * each.mean_drop:>9.0f}"
            for each in counts
        ]
        kept = sum(each.kept for each in counts)
        safe = sum(each.kept for each in counts if each.word == "SAFE")
        lines.append(f"  {safe} of {kept} kept cells are SAFE")
    return lines


def _correlations(result: CalibrationResult) -> list[str]:
    lines = []
    for target in ("share kept", "shifted success"):
        lines += ["", f"{target:<18} {'Spearman':<20} {'Kendall':<20} {'MMRV':<17} minus proxy"]
        for each in overall(result, target):
            lines.append(
                f"  {each.predictor:<16} {format_estimate(each.spearman):<20} {format_estimate(each.kendall):<20} "
                f"{format_estimate(each.mmrv):<17} {format_estimate(each.minus_proxy)}"
            )
    return lines


def format_estimate(each: Estimate | None) -> str:
    """Return an estimate with its interval as text; "-" if there is none."""
    if each is None or each.value is None:
        return "-"
    return f"{each.value:z.2f}" + ("" if each.low is None else f" [{each.low:z.2f}, {each.high:z.2f}]")
