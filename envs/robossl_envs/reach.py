"""robossl/Reach-v0: move the tool to a cross on the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from numpy.random import Generator

from robossl_envs.light import rotate_hue
from robossl_envs.pushing import move_to
from robossl_envs.scene import SceneObject
from robossl_envs.shapes import Box, CompoundShape
from robossl_envs.task import Action, EpisodeStart, Score
from robossl_envs.world import World

NEAR = 0.012  # metres: on success, the tool is closer than this to the middle of the cross
CROSS = CompoundShape((Box(0.07, 0.018), Box(0.018, 0.06, y=-0.01)))  # the lower arm of the cross is longer
COLOUR = (0.80, 0.25, 0.22)


@dataclass(frozen=True, slots=True)
class Reach:
    """Move the tool to the cross; nothing else is on the table."""

    bodies: tuple[str, ...] = ()
    target_dim: int = 2

    def start(self, rng: Generator, values: Mapping[str, float]) -> EpisodeStart:
        """Place tool and cross at random, at least 8 cm apart."""
        target, tool = rng.uniform(-0.2, 0.2, size=2), rng.uniform(-0.22, 0.22, size=2)
        while math.dist(target, tool) < 0.08:
            tool = rng.uniform(-0.22, 0.22, size=2)
        place = (float(target[0]), float(target[1]), 0.0)
        colour = rotate_hue(COLOUR, values["receiver_object_color"])
        return EpisodeStart(
            tool=(float(tool[0]), float(tool[1])),
            bodies={},
            objects={},
            markings=((SceneObject("target", CROSS, colour, height=0), place),),
            target=place[:2],
        )

    def score(self, world: World, start: EpisodeStart) -> Score:
        """Return the score; its reward is 1 on success, otherwise minus the distance to the cross."""
        left = math.dist(world.tool, start.target)
        return Score(1.0, success=True) if left < NEAR else Score(-left, success=False)

    def expert(self, world: World, start: EpisodeStart) -> Action:
        """Return the action that moves the tool straight to the cross."""
        return move_to(world.tool, (start.target[0], start.target[1]))
