"""Push an object to a place: move around it, get behind it, push, and go back if it slips."""

from __future__ import annotations

import math

from robossl_envs.scene import WORKSPACE
from robossl_envs.world import STEP_SECONDS, TOOL_RADIUS, TOOL_SPEED

Point = tuple[float, float]
REACH = TOOL_SPEED * STEP_SECONDS  # metres that the tool moves in one step at full speed
FREE = WORKSPACE - TOOL_RADIUS - 0.004


def move_to(tool: Point, goal: Point, *, speed: float = 1.0) -> Point:
    """Return the action that moves the tool straight to a point. The last step is slower, so that it ends there."""
    dx, dy = goal[0] - tool[0], goal[1] - tool[1]
    distance = math.hypot(dx, dy)
    share = min(speed, distance / REACH) / max(distance, 1e-9)
    return dx * share, dy * share


def push_to(tool: Point, thing: Point, goal: Point, *, radius: float) -> Point:
    """Return the next action for pushing an object (`thing`) with radius `radius` towards a goal."""
    gx, gy = goal[0] - thing[0], goal[1] - thing[1]
    left = math.hypot(gx, gy)
    ux, uy = gx / max(left, 1e-9), gy / max(left, 1e-9)
    px, py = tool[0] - thing[0], tool[1] - thing[1]
    along, across = px * ux + py * uy, py * ux - px * uy
    clear = radius + TOOL_RADIUS + 0.012
    # If the tool is behind the object (as seen from the goal), push, and steer back to the line from object to goal.
    if along < 0 and abs(across) < 0.35 * radius + 0.004:
        speed = min(1.0, max(0.25, left / REACH))
        side = -across * 12
        vx, vy = ux * speed - uy * side, uy * speed + ux * side
        longest = max(1.0, math.hypot(vx, vy))
        return vx / longest, vy / longest
    behind = _inside((thing[0] - ux * clear, thing[1] - uy * clear))
    # If the object blocks the straight path to the point behind the object, move around the object.
    if crosses_circle(tool, behind, thing, radius + TOOL_RADIUS + 0.002):
        angle = math.atan2(py, px)
        wanted = math.atan2(behind[1] - thing[1], behind[0] - thing[0])
        turn = (wanted - angle + math.pi) % (2 * math.pi) - math.pi
        angle += math.copysign(min(abs(turn), 0.6), turn)
        return move_to(tool, _inside((thing[0] + math.cos(angle) * clear, thing[1] + math.sin(angle) * clear)))
    return move_to(tool, behind)


def _inside(point: Point) -> Point:
    return max(-FREE, min(FREE, point[0])), max(-FREE, min(FREE, point[1]))


def crosses_circle(start: Point, end: Point, centre: Point, radius: float) -> bool:
    """Return whether the straight path from start to end enters a circle."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    cx, cy = centre[0] - start[0], centre[1] - start[1]
    share = max(0.0, min(1.0, (dx * cx + dy * cy) / max(dx * dx + dy * dy, 1e-12)))
    return math.hypot(cx - share * dx, cy - share * dy) < radius
