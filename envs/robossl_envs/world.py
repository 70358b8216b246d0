"""The physics of the table, seen from above: pymunk bodies that slide with friction, and a tool that pushes them.

The tool is a disc that a joint pulls with limited force, so it stops at the rail and never passes through objects.
Friction with the table slows down the motion and the rotation of objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pymunk

from robossl_envs.scene import WORKSPACE, Pose
from robossl_envs.shapes import Box, CompoundShape, Disc, radius_of

STEP_SECONDS = 0.1
SUBSTEPS = 5
TOOL_RADIUS = 0.014
TOOL_SPEED = 0.3  # metres per second, for an action of length 1
TOOL_FORCE = 6.0  # newton: largest force that pulls the tool
GRAVITY = 9.81
# SLIDING is the friction coefficient of the table.
# TURNING is the lever arm of the friction that slows rotation, as a share of the object's radius.
SLIDING, TURNING = 0.35, 0.3


@dataclass(frozen=True, slots=True)
class Body:
    """An object that the tool can push."""

    name: str
    shape: Disc | Box | CompoundShape
    mass: float = 0.15  # kilograms


class World:
    """Simulates bodies, tool and rail; units are metres, seconds and kilograms."""

    def __init__(self, bodies: Mapping[str, tuple[Body, Pose]], tool: tuple[float, float]) -> None:
        self.space = pymunk.Space()
        self.space.collision_slop = 0.0003
        self.space.iterations = 12
        self._bodies = {name: self._add(body, pose) for name, (body, pose) in bodies.items()}
        self._tool = pymunk.Body(0.3, math.inf)
        self._tool.position = tool
        self._lead = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._lead.position = tool
        shape = pymunk.Circle(self._tool, TOOL_RADIUS)
        shape.friction = 0.4
        pull = pymunk.PivotJoint(self._lead, self._tool, (0, 0), (0, 0))
        # `_lead` is a body that moves with the commanded velocity. The joint makes the tool copy this velocity.
        # It does not pull the tool to the position of `_lead`.
        pull.max_bias, pull.max_force = 0, TOOL_FORCE
        self.space.add(self._tool, shape, pull)
        self._add_rail()

    def _add(self, body: Body, pose: Pose) -> pymunk.Body:
        parts = _parts(body.shape)
        moment = sum(_moment(body.mass / len(parts), part) for part in parts)
        added = pymunk.Body(body.mass, moment)
        added.position, added.angle = (pose[0], pose[1]), pose[2]
        shapes: list[pymunk.Shape] = [
            pymunk.Circle(added, part.radius) if isinstance(part, Disc) else pymunk.Poly(added, part.keypoints)
            for part in parts
        ]
        for shape in shapes:
            shape.friction = 0.5
        ground = self.space.static_body
        slide = pymunk.PivotJoint(ground, added, (0, 0), (0, 0))
        slide.max_bias, slide.max_force = 0, SLIDING * body.mass * GRAVITY
        turn = pymunk.GearJoint(ground, added, 0, 1)
        turn.max_bias, turn.max_force = 0, SLIDING * body.mass * GRAVITY * TURNING * radius_of(body.shape)
        self.space.add(added, *shapes, slide, turn)
        return added

    def _add_rail(self) -> None:
        w, thick = WORKSPACE, 0.05
        corners = [(-w - thick, -w - thick), (w + thick, -w - thick), (w + thick, w + thick), (-w - thick, w + thick)]
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            rail = pymunk.Segment(self.space.static_body, a, b, thick)
            rail.friction = 0.3
            self.space.add(rail)

    def step(self, velocity: tuple[float, float]) -> None:
        """Move the tool for one step of 0.1 s; `velocity` is a fraction of the tool's full speed."""
        self._lead.velocity = velocity[0] * TOOL_SPEED, velocity[1] * TOOL_SPEED
        for _ in range(SUBSTEPS):
            self.space.step(STEP_SECONDS / SUBSTEPS)

    @property
    def tool(self) -> tuple[float, float]:
        """Position of the tool in metres."""
        x, y = self._tool.position
        return x, y

    @property
    def tool_velocity(self) -> tuple[float, float]:
        """Velocity of the tool in metres per second."""
        x, y = self._tool.velocity
        return x, y

    def pose(self, name: str) -> Pose:
        """Return the pose of the body with this name."""
        body = self._bodies[name]
        x, y = body.position
        return x, y, body.angle

    def touched(self) -> tuple[str, ...]:
        """Return the names of the bodies that the tool touches now."""
        found: set[pymunk.Body] = set()

        def note(arbiter: pymunk.Arbiter) -> None:
            found.update(shape.body for shape in arbiter.shapes if shape.body is not None)

        self._tool.each_arbiter(note)
        return tuple(name for name, body in self._bodies.items() if body in found)


def _parts(shape: Disc | Box | CompoundShape) -> tuple[Disc | Box, ...]:
    return shape.parts if isinstance(shape, CompoundShape) else (shape,)


def _moment(mass: float, part: Disc | Box) -> float:
    """Return the moment of inertia of one part about the body's origin."""
    if isinstance(part, Disc):
        return float(pymunk.moment_for_circle(mass, 0, part.radius))
    return float(pymunk.moment_for_poly(mass, part.keypoints))
