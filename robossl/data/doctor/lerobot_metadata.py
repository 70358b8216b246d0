"""Check what the metadata of a LeRobot data set states about the data: totals, sizes of pictures, statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robossl.data.manifest import Problem
from robossl.data.sources.lerobot_features import INDEX_COLUMNS
from robossl.data.sources.lerobot_meta import read_metadata

STATS = "meta/stats.json"


def check_metadata(root: Path) -> list[Problem]:
    """Return what is wrong with the totals of `meta/info.json` and with the statistics."""
    info = _read_info(root)
    return [*_check_totals(root, info), *_check_statistics(root, info)]


def read_sizes(root: Path) -> dict[str, str]:
    """Return the size (width x height in pixels) that `meta/info.json` states for each camera."""
    sizes = {}
    for name, feature in _read_info(root)["features"].items():
        shape = feature.get("shape")
        if feature["dtype"] in ("video", "image") and isinstance(shape, list) and len(shape) == 3:
            # Pictures are stated as (h, w, c) or as (c, h, w).
            height, width = shape[:2] if shape[2] in (1, 3, 4) else shape[1:]
            camera = name.removeprefix("observation.images.").removeprefix("observation.")
            sizes[camera] = f"{width}x{height}"
    return sizes


def _read_info(root: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
    return info


def _check_totals(root: Path, info: Mapping[str, Any]) -> Iterator[Problem]:
    num_rows = sum(episode.length for episode in read_metadata(root).episodes)
    if missing := [name for name in ("total_episodes", "total_frames") if name not in info]:
        yield Problem("meta/info.json", f"lacks {' and '.join(missing)}, which lerobot needs")
    if info.get("total_frames", num_rows) != num_rows:
        yield Problem("meta/info.json", f"says {info['total_frames']} frames, its episodes have {num_rows}")


def _check_statistics(root: Path, info: Mapping[str, Any]) -> Iterator[Problem]:
    """Check `meta/stats.json`, or the `meta/episodes_stats.jsonl` of v2.1 if there is no `stats.json`."""
    try:
        if (root / STATS).is_file():
            file, stated = STATS, [json.loads((root / STATS).read_text(encoding="utf-8"))]
        elif (root / "meta" / "episodes_stats.jsonl").is_file():
            file = "meta/episodes_stats.jsonl"
            lines = (root / file).read_text(encoding="utf-8").splitlines()
            stated = [json.loads(line)["stats"] for line in lines if line.strip()]
        else:
            yield Problem(STATS, "is missing; policies normalise with it")
            return
        wanted = [
            name
            for name, feature in info["features"].items()
            if name not in INDEX_COLUMNS and feature["dtype"] != "string"
        ]
        if absent := [name for name in wanted if not all(name in each for each in stated)]:
            yield Problem(file, f"lacks {', '.join(absent)}; policies normalise with it")
        for name in dict.fromkeys(name for each in stated for name in each):
            if not all(_is_finite(each[name]) for each in stated if name in each):
                yield Problem(file, f"{name} has values that are not finite")
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        yield Problem(STATS, f"cannot be read ({error})")


def _is_finite(values: Mapping[str, Any]) -> bool:
    return all(np.isfinite(np.asarray(value, np.float64)).all() for value in values.values())
