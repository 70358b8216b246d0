"""Requests that wait for an encoder, their outcomes, and the plan of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

Priority = Literal["control", "batch"]
Outcome = Literal["served", "superseded", "shed", "cancelled", "failed"]


@dataclass(eq=False, slots=True)
class Request:
    """A request to encode the frames of one call: a control request if it names a robot, otherwise a batch request."""

    frames: UInt8[ndarray, "b h w 3"]
    outputs: tuple[str, ...]
    robot: str | None
    camera: str
    # Capture time of the frames. All points in time in this class are by time.monotonic() of this machine.
    captured_s: float
    arrived_s: float
    deadline_s: float
    on_done: Callable[[], None] = field(repr=False)
    outcome: Outcome | None = None
    # Number of frames that have run. A batch request runs in slices, and control requests may run between them.
    num_done: int = 0
    parts: list[dict[str, ndarray]] = field(default_factory=list, repr=False)
    state: Float32[ndarray, "b v"] | None = None  # for a model with a policy that takes a state
    superseded: int = 0  # number of older waiting frames that this request replaced
    started_s: float = 0.0
    run_s: float = 0.0

    @property
    def num_left(self) -> int:
        """Number of frames still to run."""
        return len(self.frames) - self.num_done

    @property
    def priority(self) -> Priority:
        """The priority: control if the request names a robot, otherwise batch."""
        return "batch" if self.robot is None else "control"

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.frames.shape[1], self.frames.shape[2]

    def features(self) -> dict[str, ndarray]:
        """Return the features by output name."""
        if len(self.parts) == 1:
            return self.parts[0]
        return {name: np.concatenate([part[name] for part in self.parts]) for name in self.outputs}


@dataclass(frozen=True, slots=True)
class FrameSlice:
    """A range of a request's frames that runs now."""

    request: Request
    start: int
    stop: int

    @property
    def frames(self) -> UInt8[ndarray, "b h w 3"]:
        """The frames in the range."""
        return self.request.frames[self.start : self.stop]

    @property
    def state(self) -> Float32[ndarray, "b v"] | None:
        """The state at these frames; None if the model takes none."""
        return None if self.request.state is None else self.request.state[self.start : self.stop]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The frames that run next as one batch, and the requests that are shed (dropped because they would be late)."""

    slices: tuple[FrameSlice, ...] = ()
    shed: tuple[Request, ...] = ()

    @property
    def num_frames(self) -> int:
        """Number of all frames that run."""
        return sum(each.stop - each.start for each in self.slices)
