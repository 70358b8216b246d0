"""Which episodes are still to be played, how often each failed, and when to give up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from robossl.errors import ResourceError

MAX_ATTEMPTS = 3  # of an episode, which is dropped then
MAX_FAILURES_RUNNING = 9  # attempts that failed with none that worked between them: the environment is broken


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at an episode ended."""

    number: int
    num_frames: int = 0
    reason: str = ""  # why it failed
    disk_full: bool = False


class Todo:
    """Hands out episode numbers in order; failed ones come first."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._waiting = deque(numbers)
        self.last = max(self._waiting, default=-1)
        self._attempts: Counter[int] = Counter()
        self._running_failures = 0
        self.num_failures = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> int | None:
        """The next episode to play."""
        return self._waiting.popleft() if self._waiting else None

    def add(self, number: int) -> None:
        """One more, after all others."""
        self._waiting.append(number)
        self.last = number

    def give_back(self, number: int) -> None:
        """An episode that was interrupted through no fault of its own."""
        self._waiting.appendleft(number)

    def settle(self, outcome: Outcome) -> bool:
        """Count an attempt; whether the episode is dropped for good.

        Raises:
            ResourceError: the disk is full, or nothing works any more.
        """
        if outcome.disk_full:
            raise ResourceError(outcome.reason)
        if not outcome.reason:
            self._running_failures = 0
            return False
        self.num_failures += 1
        self._running_failures += 1
        if self._running_failures >= MAX_FAILURES_RUNNING:
            raise ResourceError(
                f"{MAX_FAILURES_RUNNING} attempts failed one after another, the last one at episode {outcome.number}: "
                f"{outcome.reason}; mend the environment and run the same command again"
            )
        self._attempts[outcome.number] += 1
        if self._attempts[outcome.number] >= MAX_ATTEMPTS:
            return True
        self.give_back(outcome.number)
        return False
