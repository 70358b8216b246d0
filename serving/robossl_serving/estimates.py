"""Estimates: how long work of one size will take, from what is expected of it and from how long it took before.

An estimate refuses work only for as long as one run takes. After that the work is tried once, and the time of that
trial is the new estimate. So neither a slow spell of the machine, nor work of another size, nor a wrong expectation
refuses work that could have been done in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WorkSize = tuple[int, int, int]  # frames, height, width

_DOUBT_S = 1.0  # half-life of an estimate while no work of its size is done
_FOLLOW = 0.1  # weight of a slower time; a faster one is believed at once, so that only what is surely late is refused
_HOPELESS = 0.3  # part of the fastest time: with less time left than that, not even a trial is worth it
_TRUST = 4  # fastest times that an estimate is trusted for, once trials have confirmed it
_CONFIRMS = 0.9  # a trial that takes at least this part of the estimate confirms it
_REMEMBERED = 64  # heights and widths; they are the callers' choice, and memory is not


@dataclass(slots=True)
class _Record:
    since_s: float  # when work of this size was last done, or first asked about
    scale: float | None = None  # measured time over expected time; None: not done yet
    num_confirmed: int = 0  # trials in a row that confirmed the estimate
    is_trial: bool = False  # the next work of this size is one


class TimeEstimates:
    """Times of one kind of work on one machine, learned for each size apart."""

    def __init__(self) -> None:
        self._records: dict[tuple[int, int], dict[int, _Record]] = {}  # by height and width, the last used at the end

    def seconds(self, size: WorkSize, expected_s: float, now_s: float) -> float:
        """How long work of a size will take."""
        return expected_s * self._scale(size) * _certainty(self._record(size, now_s), now_s)

    def is_late(self, size: WorkSize, expected_s: float, *, least_s: float, left_s: float, now_s: float) -> bool:
        """Whether work with so much time left should not be started.

        Args:
            size: Of the work.
            expected_s: How long it would take on an undisturbed machine.
            least_s: What of that was measured, and is not only expected.
            left_s: Until its deadline.
            now_s: The time.
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

    def took(self, size: WorkSize, expected_s: float, seconds: float, *, now_s: float) -> None:
        """Learn from work that was done."""
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
        """Of this size, or of the nearest number of frames of the same height and width."""
        records = self._records.get(size[1:], {})
        own = records.get(size[0])
        if own is not None and own.scale is not None:
            return own.scale
        known = {num: each.scale for num, each in records.items() if each.scale is not None}
        return known[min(known, key=lambda num: abs(num - size[0]))] if known else 1.0


def _certainty(record: _Record, now_s: float) -> float:
    return math.exp2(-max(0.0, now_s - record.since_s) / _DOUBT_S)
