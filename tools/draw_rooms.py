"""Draw the rooms (packages) of the code as one picture: a row per floor, arrows from a room to those it imports."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from rooms import Room, describe

WIDTH, HEIGHT = 3.0, 0.98  # size of a room's box, in units of the drawing
GAP_X, GAP_Y = 0.4, 0.5
COLOURS = {"robossl": "#e8eef7", "robossl_envs": "#e9f4e6", "robossl_serving": "#fbeedd", "robossl_client": "#f3e6f2"}
INK, FAINT = "#1f2933", "#7b8794"


def draw(rooms: dict[str, Room], floors: dict[str, int], arrows: Sequence[tuple[str, str]], out: Path) -> None:
    """Write the picture.

    Args:
        rooms: The rooms by name.
        floors: Floor of each room, 0 at the bottom.
        arrows: Pairs of names: a room, and a room that it imports.
        out: File of the picture, .svg or .png.
    """
    description = describe(rooms)
    # Leave out `robossl/__init__.py`, because it names all rooms.
    rooms = {name: room for name, room in rooms.items() if name != "robossl"}
    arrows = [(a, b) for a, b in arrows if a in rooms and b in rooms]
    places = arrange(rooms, floors, arrows)
    width = max(x for x, _ in places.values()) + WIDTH + 0.2
    height = max(y for _, y in places.values()) + HEIGHT + 0.6
    plt.rcParams.update({"font.family": "DejaVu Sans", "svg.fonttype": "none", "svg.hashsalt": "rooms"})
    figure, axes = plt.subplots(figsize=(width * 0.78, height * 0.78))
    for a, b in arrows:
        (xa, ya), (xb, yb) = places[a], places[b]
        start, end = (xa + WIDTH / 2, ya), (xb + WIDTH / 2, yb + HEIGHT)
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=9,
                linewidth=0.9,
                color=FAINT,
                shrinkA=0,
                shrinkB=1,
                zorder=1,
                connectionstyle="arc3,rad=0.04",
            )
        )
    for name, room in rooms.items():
        x, y = places[name]
        package = name if name in COLOURS else "robossl"
        axes.add_patch(
            FancyBboxPatch(
                (x, y),
                WIDTH,
                HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=COLOURS[package],
                edgecolor=INK,
                linewidth=0.8,
                zorder=2,
            )
        )
        about = room.about.partition(": ")[2] or room.about
        text = "\n".join(textwrap.wrap(about.rstrip("."), 36, max_lines=3, placeholder=" ..."))
        axes.text(
            x + 0.09, y + HEIGHT - 0.09, name, ha="left", va="top", fontsize=8.6, weight="bold", color=INK, zorder=3
        )
        axes.text(
            x + 0.09, y + HEIGHT - 0.34, text, ha="left", va="top", fontsize=6.3, color=INK, zorder=3, linespacing=1.25
        )
    axes.set_xlim(-0.1, width)
    axes.set_ylim(-0.15, height - 0.3)
    axes.axis("off")
    about = {"Date": None, "Description": description} if out.suffix == ".svg" else None
    figure.savefig(out, bbox_inches="tight", metadata=about, dpi=150)
    plt.close(figure)


def arrange(
    rooms: dict[str, Room], floors: dict[str, int], arrows: Sequence[tuple[str, str]]
) -> dict[str, tuple[float, float]]:
    """Return the place (x, y) of every room: on its floor, near the rooms that arrows connect it with."""
    rows: dict[int, list[str]] = {}
    for name in sorted(rooms):
        rows.setdefault(floors[name], []).append(name)
    widest = max(map(len, rows.values()))
    centre = {name: 0.0 for name in rooms}
    for _ in range(12):
        for floor in sorted(rows):
            row = rows[floor]
            near = {
                name: [centre[b] for a, b in arrows if a == name] + [centre[a] for a, b in arrows if b == name]
                for name in row
            }
            row.sort(key=lambda name: (sum(near[name]) / len(near[name]) if near[name] else 0.0, name))
            for place, name in enumerate(row):
                centre[name] = (place - (len(row) - 1) / 2) * (WIDTH + GAP_X)
    left = -(widest - 1) / 2 * (WIDTH + GAP_X)
    levels = {floor: number for number, floor in enumerate(sorted(rows))}
    return {name: (centre[name] - left, levels[floors[name]] * (HEIGHT + GAP_Y)) for name in rooms}
