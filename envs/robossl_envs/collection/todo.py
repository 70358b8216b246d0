"""The queue of episodes to play: an episode that failed is tried again, and dropped after too many attempts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from robossl.errors import ResourceError

MAX_ATTEMPTS = 3  # number of attempts per episode; if all of them fail, the episode is dropped
MAX_FAILURES = 9  # number of failures in a row after which the collection stops


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The result of one attempt to play an episode."""

    number: int
    num_frames: int = 0
    reason: str = ""  # why the attempt failed; "" if it succeeded
    disk_full: bool = False


class EpisodeQueue:
    """Hands out episode numbers in order, but failed episodes first."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._waiting = deque(numbers)
        self.last = max(self._waiting, default=-1)
        self._attempts: Counter[int] = Counter()
        self._consecutive_failures = 0
        self.num_failures = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> int | None:
        """Return the number of the next episode to play; None if the queue is empty."""
        return self._waiting.popleft() if self._waiting else None

    def add(self, number: int) -> None:
        """Append an episode number to the queue."""
        self._waiting.append(number)
        self.last = number

    def give_back(self, number: int) -> None:
        """Put an episode back at the front of the queue, so that it is played again."""
        self._waiting.appendleft(number)

    def settle(self, outcome: AttemptOutcome) -> bool:
        """Count an attempt. Return True if its episode failed too often and must be dropped, else False.

        If the attempt failed and the episode is not dropped, put the episode back into the queue.

        Raises:
            ResourceError: the disk is full, or too many attempts failed one after another.
        """
        if outcome.disk_full:
            raise ResourceError(outcome.reason)
        if not outcome.reason:
            self._consecutive_failures = 0
            return False
        self.num_failures += 1
        self._consecutive_failures += 1
        if self._consecutive_failures >= MAX_FAILURES:
            raise ResourceError(
                f"{MAX_FAILURES} attempts failed one after another, the last one at episode {outcome.number}: "
                f"{outcome.reason}; fix the environment and run the same command again"
            )
        self._attempts[outcome.number] += 1
        if self._attempts[outcome.number] >= MAX_ATTEMPTS:
            return True
        self.give_back(outcome.number)
        return False
