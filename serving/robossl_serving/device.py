"""Device: choose which encoder runs next on the processor that all encoders share.

Control requests (from robots) run before the batch requests of all encoders. No batch request starts while a control
request runs. If robots wait for several encoders, the encoder whose robot was served longest ago runs first, so every
robot gets a fair share. Batch requests of several encoders take turns.
"""

from __future__ import annotations

import threading
from typing import Protocol

from robossl_serving.requests import Priority, Request


class DeviceMember(Protocol):
    """An encoder that shares the device with other encoders."""

    running: Priority | None

    @property
    def waiting(self) -> Priority | None:
        """The highest priority of the waiting requests; None if no request waits."""
        ...

    @property
    def longest_unserved_s(self) -> float:
        """The time (time.monotonic()) when the robot that has waited longest was last served."""
        ...

    def demand_s(self, now_s: float) -> float:
        """Return the seconds that this encoder needs to serve each of its active robots once."""
        ...

    def wake(self) -> None:
        """Wake this encoder's thread, so that it checks whether it may run now."""
        ...

    def drop_overdue(self, now_s: float) -> list[Request]:
        """Remove and return the requests past their deadline."""
        ...


class Device:
    """Schedules encoders on one device; every method must be called with `lock` held."""

    def __init__(self, *, places: int = 1) -> None:
        """Allow `places` encoders to run at the same time."""
        self.lock = threading.Lock()
        self._places = places
        self._members: list[DeviceMember] = []  # all encoders; the one that ran least recently is first

    def join(self, member: DeviceMember) -> None:
        """Add an encoder."""
        self._members.append(member)

    def leave(self, member: DeviceMember) -> None:
        """Remove an encoder."""
        self._members.remove(member)

    def next(self) -> DeviceMember | None:
        """Return the encoder that may run now, or None if no encoder may run."""
        running = [member.running for member in self._members if member.running]
        if len(running) >= self._places:
            return None
        ready = [member for member in self._members if member.running is None and member.waiting]
        control = [member for member in ready if member.waiting == "control"]
        if len(control) > 1:
            return min(control, key=lambda member: member.longest_unserved_s)
        if control or "control" in running or not ready:
            return control[0] if control else None
        return ready[0]

    def beside_s(self, member: DeviceMember, now_s: float) -> float:
        """Return the seconds that all other encoders need to serve each of their active robots once."""
        return sum(other.demand_s(now_s) for other in self._members if other is not member) / self._places

    def drop_overdue(self, now_s: float) -> list[Request]:
        """Remove and return the overdue requests of all encoders, also of encoders that may not run now."""
        return [request for member in self._members for request in member.drop_overdue(now_s)]

    def begin(self, member: DeviceMember) -> None:
        """Note that an encoder starts to run; wake another encoder if it may run at the same time."""
        self._members.remove(member)
        self._members.append(member)
        if self._places > 1:
            self.wake()

    def wake(self) -> None:
        """Wake the encoder that may run now."""
        member = self.next()
        if member is not None:
            member.wake()
