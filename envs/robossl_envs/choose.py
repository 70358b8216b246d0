"""robossl/Choose-v0: move the tool to the red disc; a blue one lies beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from numpy.random import Generator

from robossl_envs.light import rotate_hue
from robossl_envs.pushing import move_to
from robossl_envs.scene import SceneObject
from robossl_envs.shapes import Disc
from robossl_envs.task import Action, EpisodeStart, Score
from robossl_envs.world import World

NEAR = 0.015  # metres: on success, the tool is closer than this to the middle of the red disc
APART = 0.12  # metres: smallest distance of the discs
RADIUS = 0.03
RED, BLUE = (0.78, 0.22, 0.20), (0.20, 0.35, 0.78)  # almost equally bright


@dataclass(frozen=True, slots=True)
class Choose:
    """Move the tool to the red disc. Only the colour says which of the two it is."""

    bodies: tuple[str, ...] = ()
    target_dim: int = 4

    def start(self, rng: Generator, values: Mapping[str, float]) -> EpisodeStart:
        """Place both discs at random, 12 cm or more apart, and the tool 8 cm or more from both."""
        red, blue = rng.uniform(-0.2, 0.2, size=(2, 2))
        while math.dist(red, blue) < APART:
            blue = rng.uniform(-0.2, 0.2, size=2)
        tool = rng.uniform(-0.22, 0.22, size=2)
        while min(math.dist(red, tool), math.dist(blue, tool)) < 0.08:
            tool = rng.uniform(-0.22, 0.22, size=2)
        discs = tuple(
            (
                SceneObject(name, Disc(RADIUS), rotate_hue(colour, values["receiver_object_color"]), height=0),
                (float(x), float(y), 0.0),
            )
            for name, colour, (x, y) in (("target", RED, red), ("other", BLUE, blue))
        )
        return EpisodeStart(
            tool=(float(tool[0]), float(tool[1])),
            bodies={},
            objects={},
            markings=discs,
            target=(float(red[0]), float(red[1]), float(blue[0]), float(blue[1])),
        )

    def score(self, world: World, start: EpisodeStart) -> Score:
        """Return the score; its reward is 1 on success, otherwise minus the distance to the red disc."""
        left = math.dist(world.tool, start.target[:2])
        return Score(1.0, success=True) if left < NEAR else Score(-left, success=False)

    def expert(self, world: World, start: EpisodeStart) -> Action:
        """Return the action that moves the tool straight to the red disc."""
        return move_to(world.tool, (start.target[0], start.target[1]))
