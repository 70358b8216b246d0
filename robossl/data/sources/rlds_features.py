"""Read `features.json` of an RLDS data set: which features of a step are cameras, columns and instructions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robossl.data.manifest import Problem
from robossl.data.source import Damaged
from robossl.errors import reason

# What these say of a step, its place in the episode says too.
_FLAGS = frozenset({"is_first", "is_last"})


@dataclass(frozen=True, slots=True)
class RldsFeatures:
    """The features of a step, by their names in the store. A path is the name in the Example, `steps/...`."""

    cameras: dict[str, str] = field(default_factory=dict)  # name -> path
    columns: dict[str, str] = field(default_factory=dict)  # name -> path
    widths: dict[str, int] = field(default_factory=dict)  # name of a column -> values per step
    instructions: tuple[str, ...] = ()  # paths of the texts that say what to do
    notes: tuple[Problem, ...] = ()


def read_features(folder: Path) -> RldsFeatures:
    """Read the features of the data set in a folder.

    Raises:
        Damaged: features.json is missing or unusable, or names no camera.
    """
    try:
        top = _children(json.loads((folder / "features.json").read_text(encoding="utf-8")))
        if "steps" not in top:
            raise Damaged(f"features.json holds {', '.join(top) or 'nothing'}; RLDS needs steps")
        leaves = dict(_leaves(top["steps"]["sequence"]["feature"], "steps"))
        extra = {
            path: feature for path, feature in _leaves({"featuresDict": {"features": top}}, "") if "text" in feature
        }
    except FileNotFoundError:
        raise Damaged("no features.json beside the tfrecords; RLDS as tensorflow-datasets writes it is read") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"features.json cannot be read ({type(error).__name__}: {reason(error)})") from error
    found = RldsFeatures(
        instructions=tuple(path for path in (*leaves, *extra) if _is_instruction(path, {**leaves, **extra}[path]))
    )
    notes = [note for path, feature in leaves.items() if (note := _add(found, path, feature, leaves))]
    if not found.cameras:
        raise Damaged(f"features.json names no picture (uint8, 3 channels) among {', '.join(leaves) or 'nothing'}")
    return RldsFeatures(found.cameras, found.columns, found.widths, found.instructions, tuple(notes))


def _add(found: RldsFeatures, path: str, feature: Mapping[str, Any], leaves: Mapping[str, Any]) -> Problem | None:
    """Add a feature to the cameras or the columns; return a note if it is left out."""
    name = _name(path, leaves)
    if "image" in feature:
        shape, dtype = _shape(feature["image"]), feature["image"].get("dtype") or "uint8"
        if (shape and shape[-1] not in (3, -1)) or dtype != "uint8":
            return Problem("features.json", f"{path} has {shape[-1]} channel(s) in {dtype}, like a depth map; not read")
        found.cameras[name] = path
    elif "tensor" in feature:
        shape, dtype = _shape(feature["tensor"]), str(feature["tensor"].get("dtype"))
        if dtype in ("string", "object") or name in _FLAGS:
            return None
        if -1 in shape or feature["tensor"].get("encoding", "none") != "none":
            return Problem("features.json", f"{path} has no fixed size or is encoded; not read")
        if len(shape) > 2:
            return Problem("features.json", f"{path} is an array of {'x'.join(map(str, shape))}; not read")
        found.columns[name], found.widths[name] = path, math.prod(shape)
    elif "text" not in feature:
        return Problem("features.json", f"{path} is {str(feature.get('pythonClassName')).split('.')[-1]}; not read")
    return None


def _name(path: str, leaves: Mapping[str, Any]) -> str:
    """Return the name in the store: without steps/ and observation/, unless another feature has the rest."""
    short = path.removeprefix("steps/")
    shorter = short.removeprefix("observation/")
    return (short if shorter != short and f"steps/{shorter}" in leaves else shorter).replace("/", ".")


def _is_instruction(path: str, feature: Mapping[str, Any]) -> bool:
    is_text = "text" in feature or feature.get("tensor", {}).get("dtype") in ("string", "object")
    return is_text and any(word in path.rsplit("/", 1)[-1] for word in ("instruction", "language", "task"))


def _leaves(feature: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "featuresDict" not in feature:
        yield path, feature
        return
    for name, child in _children(feature).items():
        yield from _leaves(child, f"{path}/{name}" if path else name)


def _children(feature: Mapping[str, Any]) -> dict[str, Any]:
    return dict(feature["featuresDict"].get("features", {}))


def _shape(described: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in described.get("shape", {}).get("dimensions", ()))
