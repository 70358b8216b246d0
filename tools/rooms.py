"""Count the rooms of the code and the imports between them, or draw them as one picture.

    python tools/rooms.py                                   # print the counts
    python tools/rooms.py --draw docs/figures/rooms.svg     # the picture in docs/architecture.md

A room is a package or a module directly under `robossl/`, or one of the three other packages. An arrow goes from a room
to each room that it imports. Imports inside functions, and imports that only type checkers see, count too.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "robossl": "robossl",
    "robossl_envs": "envs/robossl_envs",
    "robossl_serving": "serving/robossl_serving",
    "robossl_client": "serving/robossl_client",
}
# Text such as "robossl.methods.byol:BYOLConfig" counts as an import, because the code imports the object later.
TARGET = re.compile(r"(robossl\w*(?:\.\w+)+):\w+")
NAMES_OTHERS = "robossl.common.plugins"  # this module names objects of all packages, so its imports are not counted


@dataclass
class Room:
    """One package or top-level module: its modules, its size, and the rooms that it imports."""

    name: str
    about: str = ""
    modules: list[str] = field(default_factory=list)
    num_lines: int = 0
    sees: set[str] = field(default_factory=set)


def read_modules(root: Path = ROOT) -> dict[str, ast.Module]:
    """Parse every module of the four packages; return {dotted name: syntax tree}."""
    modules = {}
    for package, folder in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            if "_proto" not in path.parts:  # this folder holds generated code
                parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
                modules[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text())
    return modules


def imported_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything that a module imports by a statement or by text (see `TARGET`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and (target := TARGET.fullmatch(str(node.value))):
            yield node.lineno, target[1]


def room_of(module: str) -> str:
    """Return the room of a module: `data` for `robossl.data.video`, `robossl_serving` for `robossl_serving.model`."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "robossl" and rest not in ("", "__main__") else package


def read_rooms(root: Path = ROOT) -> dict[str, Room]:
    """Return the rooms by name, each with its modules, its size and the rooms that it imports."""
    modules = read_modules(root)
    rooms: dict[str, Room] = {}
    for name, tree in modules.items():
        room = rooms.setdefault(room_of(name), Room(room_of(name)))
        room.modules.append(name)
        path = root / PACKAGES[name.partition(".")[0]] / Path(*name.split(".")[1:])
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        room.num_lines += len(file.read_text().splitlines())
        if len(name.split(".")) <= 2 and room_of(name) == name.split(".")[-1]:
            room.about = (ast.get_docstring(tree) or "").partition("\n")[0]
        for _, imported in imported_names(tree) if name != NAMES_OTHERS else ():
            known = imported if imported in modules else imported.rpartition(".")[0]
            if known in modules and room_of(known) != room.name:
                room.sees.add(room_of(known))
    return rooms


def circles(rooms: dict[str, Room]) -> list[str]:
    """Return the names of rooms that import each other in a circle; an empty list if there is no circle."""
    try:
        list(TopologicalSorter({name: room.sees for name, room in rooms.items()}).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def describe(rooms: dict[str, Room]) -> str:
    """Return one text that says what each room imports: `cli: common data; common: errors`."""
    return "; ".join(f"{name}: {' '.join(sorted(room.sees))}" for name, room in sorted(rooms.items()))


def repeated_classes(modules: dict[str, ast.Module]) -> dict[str, int]:
    """Return the public class names that are defined more than once, and how often."""
    counts = Counter(
        node.name
        for tree in modules.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return {name: count for name, count in counts.items() if count > 1}


def floors(rooms: dict[str, Room]) -> dict[str, int]:
    """Return the floor of every room: one above the highest room that it imports, or 0 if it imports no room."""
    found: dict[str, int] = {}
    for name in TopologicalSorter({name: room.sees for name, room in rooms.items()}).static_order():
        found[name] = max((found[seen] + 1 for seen in rooms[name].sees), default=0)
    return found


def direct_arrows(rooms: dict[str, Room]) -> list[tuple[str, str]]:
    """Return the arrows without those that a longer path of arrows replaces (the transitive reduction)."""
    below: dict[str, set[str]] = defaultdict(set)
    for name in TopologicalSorter({name: room.sees for name, room in rooms.items()}).static_order():
        below[name] = rooms[name].sees.union(*(below[seen] for seen in rooms[name].sees))
    return [
        (name, seen)
        for name, room in rooms.items()
        for seen in room.sees
        if not any(seen in below[other] for other in room.sees - {seen})
    ]


def main() -> None:
    """Print the counts, or draw the picture."""
    parser = argparse.ArgumentParser(description="Count or draw the rooms of the code and the imports between them.")
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout; by default this one")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="write a picture (.svg or .png)")
    options = parser.parse_args()
    rooms = read_rooms(options.root)
    if options.draw:
        from draw_rooms import draw

        draw(rooms, floors(rooms), direct_arrows(rooms), options.draw)
        return
    width = max(map(len, rooms))
    for name, room in sorted(rooms.items()):
        print(
            f"{name:{width}} {len(room.modules):4} modules {room.num_lines:6} lines  sees {' '.join(sorted(room.sees))}"
        )
    print(f"{len(rooms)} rooms, {sum(len(room.sees) for room in rooms.values())} arrows")
    print(f"circle: {' -> '.join(circles(rooms)) or 'none'}")
    repeated = repeated_classes(read_modules(options.root))
    print(f"public class names that occur more than once: {len(repeated)} {' '.join(sorted(repeated))}")


if __name__ == "__main__":
    main()
