"""Where the tool starts: near its home, or a given distance away from it (the factor `robot_start`)."""

from __future__ import annotations

import math

from numpy.random import Generator

from robossl_envs.task import EpisodeStart

HOME = (0.0, 0.21)  # metres: below the middle of the picture's upper border
JITTER = 0.01  # metres: half the width of the square about home in which the tool starts
REACH = 0.22  # metres: largest coordinate of a start
CLEAR_OF_BODIES, CLEAR_OF_MARKINGS = 0.12, 0.04  # metres from their middles to the tool
TRIES = 100


def draw_tool(start: EpisodeStart, distance: float, rng: Generator) -> tuple[float, float]:
    """Draw the tool's place near home, or in a random direction at `distance` metres from there.

    The place lies inside the workspace, clear of bodies and targets. If no direction leads to such a place, the
    distance is halved until one does.
    """
    x, y = (place + float(each) for place, each in zip(HOME, rng.uniform(-JITTER, JITTER, size=2), strict=True))
    while distance > JITTER:
        for angle in rng.uniform(-math.pi, math.pi, size=TRIES):
            place = x + distance * math.cos(angle), y + distance * math.sin(angle)
            if _is_free(place, start):
                return place
        distance /= 2
    return x, y


def _is_free(place: tuple[float, float], start: EpisodeStart) -> bool:
    bodies = all(math.dist(place, pose[:2]) > CLEAR_OF_BODIES for _, pose in start.bodies.values())
    markings = all(math.dist(place, pose[:2]) > CLEAR_OF_MARKINGS for _, pose in start.markings)
    return max(map(abs, place)) <= REACH and bodies and markings
