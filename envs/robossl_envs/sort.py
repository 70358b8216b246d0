"""robossl/Sort-v0: push each block into the bin of its own colour, red or blue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from numpy.random import Generator

from robossl_envs.light import Colour, rotate_hue
from robossl_envs.pushing import Point, crosses_circle, push_to
from robossl_envs.scene import SceneObject
from robossl_envs.shapes import Box, radius_of
from robossl_envs.task import Action, EpisodeStart, Score
from robossl_envs.world import Body, World

SIDE = 0.045  # metres: side of a block
BIN = 0.13  # metres: side of a bin
RED, BLUE = (0.78, 0.22, 0.20), (0.20, 0.35, 0.78)


@dataclass(frozen=True, slots=True)
class Sort:
    """Push two square blocks into two bins.

    In each episode, the places of blocks and bins are random, and also which bin is on the left.
    """

    bodies: tuple[str, ...] = ("red", "blue")
    target_dim: int = 4

    def start(self, rng: Generator, values: Mapping[str, float]) -> EpisodeStart:
        """Place the blocks at random, and one bin on the left and one on the right.

        The blocks lie in the middle 14 cm x 14 cm of the table, with their centres at least 9 cm apart.
        """
        places = [rng.uniform(-0.07, 0.07, size=2) for _ in range(2)]
        while math.dist(*places) < 0.09:
            places = [rng.uniform(-0.07, 0.07, size=2) for _ in range(2)]
        side = 1 if rng.uniform() < 0.5 else -1
        bins = {"red": (0.165 * side, rng.uniform(-0.1, 0.1)), "blue": (-0.165 * side, rng.uniform(-0.1, 0.1))}
        tool = (rng.uniform(-0.2, 0.2), rng.choice((-0.2, 0.2)))
        angles = rng.uniform(-math.pi / 4, math.pi / 4, size=2)
        shape = Box(SIDE, SIDE).scaled(values["manip_object_size"])
        bodies, objects = {}, {}
        for name, colour, (x, y), angle in zip(self.bodies, (RED, BLUE), places, angles, strict=True):
            bodies[name] = Body(name, shape), (float(x), float(y), float(angle))
            objects[name] = SceneObject(
                name, shape, rotate_hue(colour, values["manip_object_color"]), height=0.03, patterned=True
            )
        return EpisodeStart(
            tool=(float(tool[0]), float(tool[1])),
            bodies=bodies,
            objects=objects,
            markings=tuple(
                marking
                for name, colour in zip(self.bodies, (RED, BLUE), strict=True)
                for marking in _bin(f"{name}_bin", rotate_hue(colour, values["receiver_object_color"]), *bins[name])
            ),
            target=(*bins["red"], *bins["blue"]),
        )

    def score(self, world: World, start: EpisodeStart) -> Score:
        """Return the score of the current state.

        If both blocks are in their bins, the reward is 1. Otherwise it is minus the sum of the blocks' distances to
        their bins, minus a tenth of the tool's distance to the nearest block outside its bin.
        """
        lefts = {name: _outside(world.pose(name), bin_) for name, bin_ in _bins(self, start)}
        todo = [name for name, left in lefts.items() if left > 0]
        if not todo:
            return Score(1.0, success=True)
        near = min(math.dist(world.tool, world.pose(name)[:2]) for name in todo)
        return Score(-sum(lefts.values()) - 0.1 * near, success=False)

    def expert(self, world: World, start: EpisodeStart) -> Action:
        """Return the action that pushes a block towards its bin.

        It takes the blocks with a free path to their bins first, and among these the block nearest to the tool. If no
        path is free, it pushes the nearest block around the block in its way.
        """
        places = {name: world.pose(name)[:2] for name in self.bodies}
        todo = [(name, bin_) for name, bin_ in _bins(self, start) if _outside(world.pose(name), bin_) > 0]
        if not todo:
            return 0.0, 0.0

        def order(item: tuple[str, Point]) -> tuple[bool, float]:
            name, bin_ = item
            return _goal(name, bin_, places) != bin_, math.dist(world.tool, places[name])

        name, bin_ = min(todo, key=order)
        radius = radius_of(start.bodies[name][0].shape)
        return push_to(world.tool, places[name], _goal(name, bin_, places), radius=radius)


def _goal(name: str, bin_: Point, places: dict[str, Point]) -> Point:
    """Return where to push a block: to its bin or, if another block is in the way, to a point beside that block."""
    x, y = places[name]
    for other, (ox, oy) in places.items():
        if other != name and crosses_circle((x, y), bin_, (ox, oy), 1.5 * SIDE):
            length = math.hypot(bin_[0] - x, bin_[1] - y)
            nx, ny = (y - bin_[1]) / length, (bin_[0] - x) / length
            side = math.copysign(2.2 * SIDE, (x - ox) * nx + (y - oy) * ny)
            return ox + nx * side, oy + ny * side
    return bin_


def _bins(task: Sort, start: EpisodeStart) -> list[tuple[str, Point]]:
    t = start.target
    return [(name, (t[2 * k], t[2 * k + 1])) for k, name in enumerate(task.bodies)]


def _outside(pose: tuple[float, float, float], middle: tuple[float, float]) -> float:
    """Return how many metres a block must move to lie fully in its bin (0 if it lies there); ignore its rotation."""
    inner = BIN / 2 - SIDE / 2
    return math.hypot(max(0, abs(pose[0] - middle[0]) - inner), max(0, abs(pose[1] - middle[1]) - inner))


def _bin(name: str, colour: Colour, x: float, y: float) -> list[tuple[SceneObject, tuple[float, float, float]]]:
    pale = tuple(0.5 + 0.35 * part for part in colour)
    return [
        (SceneObject(name, Box(BIN, BIN), colour, height=0), (x, y, 0.0)),
        (SceneObject(name, Box(BIN - 0.016, BIN - 0.016), (pale[0], pale[1], pale[2]), height=0), (x, y, 0.0)),
    ]
