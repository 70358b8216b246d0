"""robossl/Push-v0: push a T-shaped block onto a target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from numpy.random import Generator

from robossl_envs.light import rotate_hue
from robossl_envs.pushing import push_to
from robossl_envs.scene import SceneObject
from robossl_envs.shapes import Disc, radius_of, t_shape
from robossl_envs.task import Action, EpisodeStart, Score
from robossl_envs.world import Body, World

WIDTH = 0.11  # metres: width of the bar of the T
NEAR = 0.025  # metres: on success, the block's centre of mass is closer than this to the target's middle
BLOCK_COLOUR, TARGET_COLOUR = (0.20, 0.45, 0.75), (0.45, 0.75, 0.40)


@dataclass(frozen=True, slots=True)
class Push:
    """Push a block onto a ring. The block is a T whose origin is its centre of mass."""

    bodies: tuple[str, ...] = ("block",)
    target_dim: int = 2

    def start(self, rng: Generator, values: Mapping[str, float]) -> EpisodeStart:
        """Place block and target at random, at least 10 cm apart, and the tool at least 12 cm from the block."""
        block = rng.uniform(-0.13, 0.13, size=2)
        angle = rng.uniform(-math.pi, math.pi)
        target = rng.uniform(-0.15, 0.15, size=2)
        while math.dist(block, target) < 0.1:
            target = rng.uniform(-0.15, 0.15, size=2)
        tool = rng.uniform(-0.22, 0.22, size=2)
        while math.dist(block, tool) < 0.12:
            tool = rng.uniform(-0.22, 0.22, size=2)
        shape = t_shape(WIDTH).scaled(values["manip_object_size"])
        colour = rotate_hue(BLOCK_COLOUR, values["manip_object_color"])
        ring = rotate_hue(TARGET_COLOUR, values["receiver_object_color"])
        place = (float(target[0]), float(target[1]), 0.0)
        inner = tuple(0.75 * part for part in ring)
        return EpisodeStart(
            tool=(float(tool[0]), float(tool[1])),
            bodies={"block": (Body("block", shape), (float(block[0]), float(block[1]), angle))},
            objects={"block": SceneObject("block", shape, colour, height=0.03, patterned=True)},
            markings=(
                (SceneObject("target", Disc(0.045), ring, height=0), place),
                (SceneObject("target", Disc(0.03), (inner[0], inner[1], inner[2]), height=0), place),
            ),
            target=place[:2],
        )

    def score(self, world: World, start: EpisodeStart) -> Score:
        """Return the score of the current state.

        On success, the reward is 1. Otherwise it is minus the block's distance to the target, minus a tenth of the
        tool's distance to the block.
        """
        x, y, _ = world.pose("block")
        left = math.dist((x, y), start.target)
        if left < NEAR:
            return Score(1.0, success=True)
        return Score(-left - 0.1 * math.dist(world.tool, (x, y)), success=False)

    def expert(self, world: World, start: EpisodeStart) -> Action:
        """Return the action that pushes the block's centre of mass along the line to the target."""
        x, y, _ = world.pose("block")
        radius = radius_of(start.bodies["block"][0].shape)
        return push_to(world.tool, (x, y), (start.target[0], start.target[1]), radius=radius)
