"""Say what a verdict has meant for policies, by the calibration record of its profile."""

from __future__ import annotations

from robossl.probes.result import CalibrationRecord


def describe_record(word: str, record: CalibrationRecord | None) -> str:
    r"""Return what became of the policies with this verdict; "" if the profile has no record.

    >>> from robossl.probes.result import WordRecord
    >>> record = CalibrationRecord(("robossl/Reach-v0",), 6, 20, {"RISKY": WordRecord(1, 34, 2, mean_drop=61)})
    >>> print(describe_record("RISKY", record).replace("; ", ";\n"))
    RISKY has meant: success fell by 61 points;
    34 of 37 policies surely lost more than 20, 1 surely less (6 encoders, robossl/Reach-v0)
    """
    if record is None:
        return ""
    where = f"{record.encoders} encoders, {', '.join(record.environments)}"
    found = record.words.get(word)
    if found is None:
        return f"{word} was not seen in calibration ({where})"
    total = found.kept + found.lost + found.open
    return (
        f"{word} has meant: success fell by {found.mean_drop} points; {found.lost} of {total} policies surely lost "
        f"more than {record.points}, {found.kept} surely less ({where})"
    )
