"""Convert a frame's capture time, given by the monotonic or the wall clock, to seconds of time.monotonic()."""

from __future__ import annotations

import math
import time
from numbers import Real

from robossl_client.errors import RequestError

# A capture time may be this far in the future, because synchronised clocks differ by a few milliseconds.
MAX_AHEAD_S = 0.05
# A capture time further in the past than this is refused, because it must be of another clock or in another unit.
MAX_AGE_S = 600.0
_ADVICE = {
    "captured_s": "time.monotonic(); pass wall-clock stamps (time.time(), ROS), in seconds, as captured_at=",
    "captured_at": "time.time(); pass stamps of time.monotonic(), in seconds, as captured_s=",
}


def capture_time(captured_s: float | None, captured_at: float | None) -> float:
    """Return the capture time of a frame in seconds of time.monotonic(), but at most the present time.

    If neither argument is given, return the present time.

    Args:
        captured_s: Capture time by time.monotonic().
        captured_at: Capture time by the wall clock, time.time().

    Raises:
        RequestError: both are given, or the time is not a number, too old, or in the future.
    """
    now_s = time.monotonic()
    if captured_s is not None and captured_at is not None:
        raise RequestError("got captured_s and captured_at; pass one of them")
    if captured_s is not None:
        return now_s - _age("captured_s", captured_s, now_s)
    if captured_at is not None:
        return now_s - _age("captured_at", captured_at, time.time())
    return now_s


def _age(name: str, stamp: object, now_s: float) -> float:
    if not isinstance(stamp, Real) or isinstance(stamp, bool) or not math.isfinite(stamp):
        raise RequestError(f"{name} must be seconds of {_ADVICE[name]}; got {stamp!r}")
    age_s = now_s - float(stamp)
    if age_s < -MAX_AHEAD_S:
        raise RequestError(f"{name} is {-age_s:.3g} s in the future of {_ADVICE[name]}")
    if age_s > MAX_AGE_S:
        raise RequestError(f"{name} is {age_s:.3g} s old, over {MAX_AGE_S:g} s, by {_ADVICE[name]}")
    return max(0.0, age_s)


def seconds(name: str, milliseconds: float) -> float:
    """Convert an argument in milliseconds to seconds.

    Raises:
        RequestError: the argument is not a finite number.
    """
    if not isinstance(milliseconds, Real) or not math.isfinite(milliseconds):
        raise RequestError(f"{name} must be a finite number of milliseconds, got {milliseconds!r}")
    return float(milliseconds) / 1e3
