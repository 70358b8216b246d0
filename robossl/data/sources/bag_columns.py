"""Columns of a bag: numbers of the topics of joints, actions and poses, each matched to frames by the nearest time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from robossl.data.source import GAP_COLUMN, Damaged
from robossl.data.sources.ros_images import stamp_of

PACKAGES = ("sensor_msgs", "std_msgs", "geometry_msgs", "nav_msgs", "trajectory_msgs")
_NUMBER = re.compile(r"(Float|Int|UInt)(8|16|32|64)|Bool")
_LISTS = {"JointState": ("position", "velocity", "effort"), "Joy": ("axes", "buttons")}
_GEOMETRY = re.compile(r"(Pose|Twist|Wrench|Accel|Transform|Point|Vector3|Quaternion)(WithCovariance)?(Stamped)?")
# Fields of geometry messages, in the order of their values. Covariances are left out.
_PARTS = (
    *("pose", "twist", "wrench", "accel", "transform", "point", "vector", "quaternion"),
    *("position", "translation", "orientation", "rotation", "linear", "angular", "force", "torque"),
)


@dataclass(frozen=True, slots=True)
class BagColumn:
    """The values of one column in time order."""

    times: Int64[ndarray, " n"]  # nanoseconds
    values: Float32[ndarray, "n d"]
    is_logged: bool  # whether the times are log times, because the messages have no header


def is_column_type(name: str) -> bool:
    """Return whether the values of messages of this type can be columns, such as `sensor_msgs/msg/JointState`."""
    package, kind = name.split("/")[0], name.split("/")[-1]
    is_number = _NUMBER.fullmatch(kind.removesuffix("MultiArray"))
    known = kind in _LISTS or kind in ("JointTrajectory", "Odometry") or _GEOMETRY.fullmatch(kind)
    return package in PACKAGES and bool(is_number or known)


def column_values(topic: str, kind: str, message: Any) -> dict[str, list[float]]:
    """Return the values of a message by the name of their column: the topic, and the field if there are several."""
    name, kind = topic.strip("/"), kind.split("/")[-1]
    if kind in _LISTS:
        found = {f"{name}.{field}": list(getattr(message, field)) for field in _LISTS[kind]}
    elif kind == "JointTrajectory":
        found = {name: list(message.points[0].positions) if len(message.points) else []}
    elif hasattr(message, "data"):
        data = message.data
        found = {name: list(data) if hasattr(data, "__len__") else [data]}
    else:
        found = {name: list(_geometry(message))}
    return {name: values for name, values in found.items() if values}


def _geometry(message: Any) -> Iterator[float]:
    parts = [getattr(message, part) for part in _PARTS if hasattr(message, part)]
    if parts:
        for part in parts:
            yield from _geometry(part)
    else:
        yield from (getattr(message, axis) for axis in "xyzw" if hasattr(message, axis))


def read_columns(
    messages: Iterable[tuple[str, int, Any]], kinds: Mapping[str, str], widths: Mapping[str, int]
) -> dict[str, BagColumn]:
    """Read the columns of a recording from its messages.

    Joints are put in the order of the topic's first message. Messages with other joints or of another width are left
    out: several publishers may share a topic.

    Args:
        messages: topic, log time in nanoseconds, and message.
        kinds: type of each topic.
        widths: number of values per row of each column to read.

    Raises:
        Damaged: a column has no row.
    """
    rows: dict[str, list[tuple[int, int, list[float]]]] = {name: [] for name in widths}
    joints: dict[str, list[str]] = {}
    for topic, log_time, message in messages:
        order: list[int] | None = None
        if names := list(getattr(message, "name", ())):
            first = joints.setdefault(topic, names)
            if sorted(names) != sorted(first):
                continue
            order = None if names == first else [names.index(joint) for joint in first]
        stamp = stamp_of(message)
        for name, values in column_values(topic, kinds[topic], message).items():
            if name in rows and len(values) == widths[name]:
                in_order = [values[at] for at in order] if order and len(order) == len(values) else values
                rows[name].append((stamp, log_time, in_order))
    if lacking := next((name for name, found in rows.items() if not found), ""):
        raise Damaged(f"column {lacking} has no message with {widths[lacking]} values")
    return {name: _to_column(found) for name, found in rows.items()}


def _to_column(rows: list[tuple[int, int, list[float]]]) -> BagColumn:
    is_logged = not all(stamp for stamp, _, _ in rows)
    times = np.array([log_time if is_logged else stamp for stamp, log_time, _ in rows], np.int64)
    order = np.argsort(times, kind="stable")
    return BagColumn(times[order], np.array([values for _, _, values in rows], np.float32)[order], is_logged)


def match_columns(columns: Mapping[str, BagColumn], stamp: int, log_time: int) -> dict[str, Float32[ndarray, " d"]]:
    """Return the row of each column that is nearest to a frame, and the largest time between them.

    Header times are compared to header times, and log times to log times. Of two rows as near, the earlier is used.
    """
    found: dict[str, ndarray] = {}
    gap = 0
    for name, column in columns.items():
        at = log_time if column.is_logged else stamp
        right = int(np.searchsorted(column.times, at))
        near = [row for row in (right - 1, right) if 0 <= row < len(column.times)]
        row = min(near, key=lambda row: abs(int(column.times[row]) - at))
        found[name] = column.values[row]
        gap = max(gap, abs(int(column.times[row]) - at))
    return found | {GAP_COLUMN: np.array([gap / 1e9], np.float32)} if found else {}
