"""Request: frames that wait for their turn, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

Priority = Literal["control", "batch"]
Outcome = Literal["served", "superseded", "shed", "cancelled", "failed"]


@dataclass(eq=False, slots=True)
class Request:
    """Frames of one call; a request of a robot is a control request, any other is a batch request."""

    frames: UInt8[ndarray, "b h w 3"]
    outputs: tuple[str, ...]
    robot: str | None
    camera: str
    captured_s: float  # on this machine's monotonic clock, as are all times here
    arrived_s: float
    deadline_s: float
    on_done: Callable[[], None] = field(repr=False)
    outcome: Outcome | None = None
    num_done: int = 0  # frames run so far: a batch request is run in slices, so that control requests go between
    parts: list[dict[str, ndarray]] = field(default_factory=list, repr=False)
    superseded: int = 0  # older frames that this one has replaced
    started_s: float = 0.0
    run_s: float = 0.0

    @property
    def num_left(self) -> int:
        """Frames still to run."""
        return len(self.frames) - self.num_done

    @property
    def priority(self) -> Priority:
        """A control request is a robot's."""
        return "batch" if self.robot is None else "control"

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.frames.shape[1], self.frames.shape[2]

    def features(self) -> dict[str, ndarray]:
        """What the encoder gave, by output name."""
        if len(self.parts) == 1:
            return self.parts[0]
        return {name: np.concatenate([part[name] for part in self.parts]) for name in self.outputs}


@dataclass(frozen=True, slots=True)
class FrameSlice:
    """Some frames of a request, to be run now."""

    request: Request
    start: int
    stop: int

    @property
    def frames(self) -> UInt8[ndarray, "b h w 3"]:
        """Those frames."""
        return self.request.frames[self.start : self.stop]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What runs next, together, and what will not run any more."""

    slices: tuple[FrameSlice, ...] = ()
    shed: tuple[Request, ...] = ()

    @property
    def num_frames(self) -> int:
        """Frames in all slices."""
        return sum(each.stop - each.start for each in self.slices)
