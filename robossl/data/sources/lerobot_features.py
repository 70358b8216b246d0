"""Read the features in `meta/info.json` of a LeRobot dataset: find the cameras and the columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from robossl.data.manifest import Problem
from robossl.errors import InputError

INDEX_COLUMNS = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})


def cameras_of(features: Mapping[str, Mapping[str, Any]], notes: list[Problem]) -> tuple[str, ...]:
    """Return the names of the cameras (features that are pictures); leave out depth maps and add them to `notes`.

    Raises:
        InputError: there is no camera.
    """
    cameras = []
    for name, feature in features.items():
        if feature["dtype"] not in ("video", "image"):
            continue
        if why := _depth(feature):
            notes.append(Problem("meta/info.json", f"{name} is a depth map ({why}), not read"))
        else:
            cameras.append(name)
    if not cameras:
        raise InputError(f"info.json names no camera among {', '.join(features)}")
    return tuple(cameras)


def _depth(feature: Mapping[str, Any]) -> str:
    """Return why a camera counts as a depth map; "" if it does not.

    Datasets mark depth in the block `info`, older datasets in `video_info`; the keys may have the prefix "video.". Some
    datasets state only that there is one channel, or a grey pixel format with more than 8 bits.
    """
    stated = {key: value for block in ("info", "video_info") for key, value in (feature.get(block) or {}).items()}
    for key, value in {**feature, **stated}.items():
        if key.split(".")[-1] in ("is_depth_map", "is_depth") and str(value).lower() in ("true", "1"):
            return f"marked by {key}"
    pixel_format = str(stated.get("video.pix_fmt") or stated.get("pix_fmt") or "")
    if re.match(r"gray\d|y16|z16", pixel_format):
        return f"pixel format {pixel_format}"
    channels = [stated.get("video.channels", stated.get("channels")), _num_channels(feature)]
    return "one channel" if 1 in channels else ""


def _num_channels(feature: Mapping[str, Any]) -> int | None:
    """Return the number of channels from the stated shape, (h, w, c) or (c, h, w).

    Return None if the shape does not show which of its numbers is the number of channels.
    """
    shape, names = feature.get("shape") or [], _flatten(feature.get("names"))
    if len(shape) == 2:
        return 1
    if len(shape) != 3:
        return None
    places = [place for place, name in enumerate(names) if name.startswith("channel")] if len(names) == 3 else []
    if places:
        return int(shape[places[0]])
    return 1 if 1 in (shape[0], shape[2]) else None


def columns_of(
    features: Mapping[str, Mapping[str, Any]], notes: list[Problem]
) -> tuple[dict[str, str], dict[str, int]]:
    """Return the numeric per-frame columns as two mappings. Their keys are the names of the columns in the store.

    The first mapping gives the names in the data files, the second the widths in info.json.
    """
    columns: dict[str, str] = {}
    widths: dict[str, int] = {}
    for name, feature in features.items():
        if name in INDEX_COLUMNS or feature["dtype"] in ("video", "image", "string"):
            continue
        short = {"observation.state": "state", "actions": "action"}.get(name, name)
        short = name if short in columns else short
        if not isinstance(shape := feature.get("shape"), list):
            notes.append(Problem("meta/info.json", f"{name} states no shape; not read"))
            continue
        columns[short], widths[short] = name, int(np.prod(shape))
        names = feature.get("names")
        flat = _flatten(names)
        if isinstance(names, list) and any(isinstance(entry, list) for entry in names):
            notes.append(Problem("meta/info.json", f"{name}: names are nested one list too deep"))
        if flat and len(flat) != widths[short]:
            notes.append(Problem("meta/info.json", f"{name}: {len(flat)} names for {widths[short]} values"))
    return columns, widths


def _flatten(names: Any) -> list[str]:
    if isinstance(names, dict):
        return [flat for value in names.values() for flat in _flatten(value)]
    if isinstance(names, list):
        return [flat for value in names for flat in _flatten(value)]
    return [] if names is None else [str(names)]
