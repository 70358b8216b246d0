"""Estimate how long work (an encoder run or image decoding) takes, from its expected time and from earlier runs.

If an estimate says that work would be late, the work is refused, but only for about as long as one run takes. Then the
work runs once as a trial, and the estimate learns the time of the trial. So work that could be done in time is never
refused for long, whatever made the estimate wrong: a slow phase of the machine, work of another size, or a wrong
expected time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WorkSize = tuple[int, int, int]  # number of frames, their height, their width

_DOUBT_S = 1.0  # an estimate halves in this time while no work of its size runs
# Weight of the last measured time in the estimate, if this time is longer than the estimate.
# A shorter time replaces the estimate, so that only hopeless work is refused.
_FOLLOW = 0.1
# If less than this share of the shortest possible time is left until the deadline, work does not even run as a trial.
_HOPELESS = 0.3
# Work is refused for at most this multiple of the shortest possible time, or for the estimated time if that is longer.
# Then a trial runs.
_TRUST = 4
_CONFIRMS = 0.9  # a trial confirms the estimate if it takes at least this share of the estimated time
_REMEMBERED = 64  # number of remembered frame sizes; limited, because clients can send any size


@dataclass(slots=True)
class _Record:
    since_s: float  # time of the last run of this size; before the first run, time of the first estimate
    scale: float | None = None  # measured time / expected time; None before the first run
    num_confirmed: int = 0  # trials in a row that confirmed the estimate
    is_trial: bool = False  # whether the next run of this size is a trial


class TimeEstimates:
    """Estimated times of one kind of work on one machine, learned separately for each size."""

    def __init__(self) -> None:
        # Records by (height, width), then by number of frames; the (height, width) used last is at the end.
        self._records: dict[tuple[int, int], dict[int, _Record]] = {}

    def seconds(self, size: WorkSize, expected_s: float, now_s: float) -> float:
        """Return the estimated duration of a run of this size, in seconds."""
        return expected_s * self._scale(size) * _certainty(self._record(size, now_s), now_s)

    def is_late(self, size: WorkSize, expected_s: float, *, least_s: float, left_s: float, now_s: float) -> bool:
        """Return whether work should not start because it would miss its deadline.

        Args:
            size: Size of the work.
            expected_s: Time that the work should take on an idle machine.
            least_s: The part of `expected_s` that was measured, not extrapolated; 0 if nothing was measured.
            left_s: Time left until the deadline of the work.
            now_s: Current time.
        """
        record = self._record(size, now_s)
        scale, certainty = self._scale(size), _certainty(record, now_s)
        if left_s >= expected_s * scale * certainty:
            return False
        fastest_s = min(least_s, expected_s) if record.scale is None else expected_s
        fastest_s *= min(1.0, scale)
        if left_s < _HOPELESS * fastest_s * certainty:
            return True
        trusted_s = min(fastest_s * 2**record.num_confirmed, max(_TRUST * fastest_s, expected_s * scale))
        record.is_trial = now_s - record.since_s >= trusted_s
        return not record.is_trial

    def learn(self, size: WorkSize, expected_s: float, seconds: float, *, now_s: float) -> None:
        """Update the estimate for a size from a finished run."""
        record = self._record(size, now_s)
        before, ratio = self._scale(size), seconds / expected_s
        if ratio < _CONFIRMS * before:
            record.num_confirmed = 0
        elif record.is_trial:
            record.num_confirmed = min(record.num_confirmed + 1, 8)
        record.scale = ratio if ratio < before else (1 - _FOLLOW) * before + _FOLLOW * ratio
        record.since_s, record.is_trial = now_s, False

    def _record(self, size: WorkSize, now_s: float) -> _Record:
        num_frames, hw = size[0], size[1:]
        records = self._records.pop(hw, {})
        self._records[hw] = records
        if len(self._records) > _REMEMBERED:
            del self._records[next(iter(self._records))]
        return records.setdefault(num_frames, _Record(since_s=now_s))

    def _scale(self, size: WorkSize) -> float:
        """Return the scale (measured time / expected time) of this size.

        If this size has not run yet, return the scale of the nearest number of frames of this height and width. If no
        such size has run, return 1.
        """
        records = self._records.get(size[1:], {})
        own = records.get(size[0])
        if own is not None and own.scale is not None:
            return own.scale
        known = {num: each.scale for num, each in records.items() if each.scale is not None}
        return known[min(known, key=lambda num: abs(num - size[0]))] if known else 1.0


def _certainty(record: _Record, now_s: float) -> float:
    return math.exp2(-max(0.0, now_s - record.since_s) / _DOUBT_S)
