"""Say what a verdict has meant for policies, by the calibration record of its profile."""

from __future__ import annotations

from robossl.probes.result import CalibrationRecord


def describe_record(word: str, record: CalibrationRecord | None) -> str:
    """Return what became of the policies with this verdict; "" if the profile has no record.

    >>> from robossl.probes.result import WordRecord
    >>> record = CalibrationRecord(("robossl/Reach-v0",), 6, 20, {"RISKY": WordRecord(kept=1, lost=34, open=2)})
    >>> describe_record("RISKY", record)
    'RISKY has meant: 34 of 37 policies lost 20 points or more, 1 kept theirs, 2 open (6 encoders, robossl/Reach-v0)'
    """
    if record is None:
        return ""
    where = f"{record.encoders} encoders, {', '.join(record.environments)}"
    found = record.words.get(word)
    if found is None:
        return f"{word} was not seen in calibration ({where})"
    total = found.kept + found.lost + found.open
    return (
        f"{word} has meant: {found.lost} of {total} policies lost {record.points} points or more, {found.kept} kept "
        f"theirs, {found.open} open ({where})"
    )
