"""An open bag (a recording of topics), and what its topics hold: cameras, columns, and what is not read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from robossl.data.source import GAP_COLUMN, Damaged
from robossl.data.sources.bag_columns import column_values, is_column_type
from robossl.data.sources.ros_images import VIDEO_CODECS, check_encoding, encoding_of, is_camera_type, starts_video
from robossl.errors import InputError, reason

MAX_REMARKS = 5  # sets of topics that are described
MAX_SHOWN = 12  # topics that are named though they are not read


@dataclass(frozen=True, slots=True)
class BagTopic:
    """A topic of a recording."""

    type: str  # such as sensor_msgs/msg/Image
    num_messages: int


class Bag(Protocol):
    """An open recording. Its files are closed when nothing refers to it any more."""

    topics: dict[str, BagTopic]
    note: str  # how far a recording that is cut short is read; "" if it is whole

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """Yield topic, log time in nanoseconds, and decoded message, in the order of log times."""
        ...


@contextmanager
def as_damage() -> Iterator[None]:
    """Turn any error of a reader into `Damaged`. Readers raise errors of every type for damaged bytes."""
    try:
        yield
    except (Damaged, InputError, MemoryError):
        raise
    except Exception as error:
        raise Damaged(f"cannot be read ({reason(error)})") from error


@dataclass(slots=True)
class BagLook:
    """What the topics of a recording hold, from the first message of each."""

    cameras: dict[str, str] = field(default_factory=dict)  # encoding of each topic that is read
    columns: dict[str, int] = field(default_factory=dict)  # number of values per row
    refused: dict[str, str] = field(default_factory=dict)  # topic and reason
    notes: dict[str, str] = field(default_factory=dict)  # topic ("" for all), and what is left out
    shown: str = ""  # description of the topics


def look_into(bag: Bag) -> BagLook:
    """Look at the first message of each topic.

    Raises:
        Damaged: no topic is a camera.
    """
    look = BagLook(notes={"": bag.note} if bag.note else {})
    read: list[str] = []
    left: list[str] = []
    for name, topic in sorted(bag.topics.items()):
        try:
            with as_damage():
                what = _look_at(name, topic, bag, look)
        except Damaged as damage:
            look.refused[name], what = str(damage), ""
        short = topic.type.replace("/msg/", "/")
        (read if what else left).append(f"{name} ({short}{', ' + what if what else ''})")
    if not any(is_camera_type(topic.type) and topic.num_messages for topic in bag.topics.values()):
        held = "; ".join(filter(None, [", ".join([*read, *left][:MAX_SHOWN]) or "no topic", bag.note]))
        raise Damaged(f"holds no pictures; a topic of sensor_msgs/Image or CompressedImage is needed, got {held}")
    more = f" and {len(left) - MAX_SHOWN} more" if len(left) > MAX_SHOWN else ""
    look.shown = f"reads {', '.join(read) or 'nothing'}"
    look.shown += f"; does not read {', '.join(left[:MAX_SHOWN])}{more}" if left else ""
    return look


def _look_at(name: str, topic: BagTopic, bag: Bag, look: BagLook) -> str:
    """Look at the first message of a topic; return what it is read as, or ""."""
    is_camera = is_camera_type(topic.type)
    if not topic.num_messages or not (is_camera or is_column_type(topic.type)):
        return ""
    _, _, message = next(bag.messages([name]))
    if not is_camera:
        columns = column_values(name, topic.type, message)
        look.columns |= {column: len(values) for column, values in columns.items()}
        return f"{len(columns)} columns" if len(columns) > 1 else "column" if columns else ""
    encoding = encoding_of(message)
    check_encoding(encoding)
    look.cameras[name] = encoding
    if encoding in VIDEO_CODECS and not starts_video(bytes(message.data), encoding):
        look.notes[name] = "begins between key frames; the frames before the first key frame are left out"
    return encoding


def describe_topics(topics: dict[str, list[str]], *, is_matched: bool) -> tuple[str, ...]:
    """Return lines for the user: what is read of each recording, and how columns are matched.

    Args:
        topics: recordings by the description of their topics.
        is_matched: whether there are columns.
    """
    remarks = []
    for shown, names in list(topics.items())[:MAX_REMARKS]:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        remarks.append(f"{names[0]}{others}: {shown}")
    if len(topics) > MAX_REMARKS:
        remarks.append(f"recordings with {len(topics) - MAX_REMARKS} other sets of topics are not shown")
    if is_matched:
        remarks.append(f"columns are matched to frames by the nearest time; {GAP_COLUMN} has the largest difference")
    return tuple(remarks)
