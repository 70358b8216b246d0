"""Device: which encoder runs next on the processor that all of them share.

A robot's frame of any encoder goes before the batch requests of every encoder, and no batch request begins beside a
robot's frame. Among encoders whose robots wait, the one with the robot that was served longest ago goes first, so that
robots get fair shares whichever encoder they ask. Batch requests of several encoders take turns.
"""

from __future__ import annotations

import threading
from typing import Protocol

from robossl_serving.requests import Priority, Request


class DeviceMember(Protocol):
    """An encoder that runs on the device."""

    running: Priority | None

    @property
    def waiting(self) -> Priority | None:
        """What waits, a robot's frames before batch requests; None: nothing."""
        ...

    @property
    def longest_unserved_s(self) -> float:
        """When the waiting robot that was served longest ago was served."""
        ...

    def demand_s(self, now_s: float) -> float:
        """How long it takes to serve each of its active robots once."""
        ...

    def wake(self) -> None:
        """Look whether it is this encoder's turn."""
        ...

    def drop_overdue(self, now_s: float) -> list[Request]:
        """Let what is past its deadline wait no longer, and return it."""
        ...


class Device:
    """Turns on one device. Its lock is held by the caller of every method."""

    def __init__(self, *, places: int = 1) -> None:
        """Let encoders run on one device, so many at the same time."""
        self.lock = threading.Lock()
        self._places = places
        self._members: list[DeviceMember] = []  # the one that ran longest ago first

    def join(self, member: DeviceMember) -> None:
        """Let an encoder take part."""
        self._members.append(member)

    def leave(self, member: DeviceMember) -> None:
        """Forget an encoder."""
        self._members.remove(member)

    def next(self) -> DeviceMember | None:
        """The encoder that may run now; None: none may."""
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
        """How long all other encoders need to serve each of their active robots once."""
        return sum(other.demand_s(now_s) for other in self._members if other is not member) / self._places

    def drop_overdue(self, now_s: float) -> list[Request]:
        """Forget what is past its deadline, of all encoders: one whose turn does not come cannot do so itself."""
        return [request for member in self._members for request in member.drop_overdue(now_s)]

    def begin(self, member: DeviceMember) -> None:
        """Note that an encoder runs; another may run beside it where there is a place."""
        self._members.remove(member)
        self._members.append(member)
        if self._places > 1:
            self.wake()

    def wake(self) -> None:
        """Tell the encoder whose turn it is."""
        member = self.next()
        if member is not None:
            member.wake()
