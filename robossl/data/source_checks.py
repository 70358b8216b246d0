"""Check what a source returns: its listing, and each of its frames. The source of a plugin may return anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from robossl.common.plugins import code_name, describe_error, type_name
from robossl.data.source import Damaged, Frame, Listing, Source, Unit
from robossl.errors import InputError, reason


def check_listing(found: object, source: Source) -> Listing:
    """Return the listing of a source if it can be used.

    Raises:
        InputError: it is no `Listing` of units, two units have the same key, or a field of a unit has the wrong type.
    """
    about = f"{code_name(type(source))}.listing()"
    if not isinstance(found, Listing):
        raise InputError(f"{about} returned {type_name(found)}; return a Listing (robossl.data.source)")
    for unit in found.units:
        wrong = _why_wrong_unit(unit)
        if wrong:
            raise InputError(f"{about} {wrong}")
    for key, count in Counter(unit.key for unit in found.units).items():
        if count > 1:
            raise InputError(f"{about} gave {count} units the key {key!r}; give every unit a key of its own")
    return found


def _why_wrong_unit(unit: object) -> str:
    if not isinstance(unit, Unit):
        return f"listed {type_name(unit)}; list units (robossl.data.source.Unit)"
    texts = {"key": unit.key, "fingerprint": unit.fingerprint, "split": unit.split}
    texts |= {f"label {name}": value for name, value in unit.labels.items()}
    for name, value in texts.items():
        if not isinstance(value, str):
            return f"gave the unit {unit.key!r} the {name} {value!r} ({type(value).__name__}); it must be text (str)"
    if not isinstance(unit.num_frames, int | np.integer) or unit.num_frames < 0:
        return f"gave the unit {unit.key!r} num_frames {unit.num_frames!r}; it must be a whole number, 0 or more"
    return ""


def read_frames(source: Source, unit: Unit, columns: Mapping[str, int]) -> Iterator[Frame]:
    """Read the frames of a unit (episode), check that each frame can be stored, and yield it.

    Args:
        source: reader of the unit.
        unit: what to read.
        columns: width of each per-frame column, as the listing says.

    Raises:
        Damaged: the unit cannot be read, a frame has the wrong shape, type or columns, or frames differ in size.
        InputError: the source returns something other than frames, or raises an error other than `Damaged`, OSError,
            ArrowException or MemoryError.
    """
    about = f"{code_name(type(source))}.frames()"
    first: Frame | None = None
    try:
        found: object = source.frames(unit)
        if not isinstance(found, Iterable):
            raise InputError(f"{about} returned {type_name(found)} for {unit.key}; yield frames, or return a list")
        for number, frame in enumerate(found):
            if not isinstance(frame, Frame):
                raise InputError(
                    f"{about} gave {type_name(frame)} for {unit.key}; yield Frame(pixels, time_seconds) "
                    "(robossl.data.source)"
                )
            wrong = _why_wrong_frame(frame, columns)
            if wrong:
                raise Damaged(f"{about} gave frame {number} {wrong}")
            first = first or frame
            if frame.pixels.shape != first.pixels.shape:
                raise Damaged(
                    f"frame {number} has {_size(frame)} pixels, frame 0 has {_size(first)}; all frames of an episode "
                    "must have one size"
                )
            yield frame
    except (OSError, pa.ArrowException) as error:
        raise Damaged(f"cannot be read ({reason(error)})") from error
    except (Damaged, InputError, MemoryError):
        raise
    except Exception as error:  # a source may raise anything
        raise InputError(
            f"{about} failed for {unit.key} ({describe_error(error)}); mend it, or raise Damaged to leave out "
            "the episode"
        ) from error


def _why_wrong_frame(frame: Frame, columns: Mapping[str, int]) -> str:
    pixels = frame.pixels
    if not isinstance(pixels, np.ndarray):
        return f"with {type_name(pixels)} as pixels; they must be a numpy array"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        return f"with pixels {pixels.shape} {pixels.dtype}; they must be (h, w, 3) uint8, RGB"
    if not isinstance(frame.time_seconds, int | float | np.number) or not math.isfinite(frame.time_seconds):
        return f"at the time {frame.time_seconds!r}; it must be a number of seconds"
    if frame.columns.keys() != columns.keys():
        return f"with the columns {_names(frame.columns)}; the listing names {_names(columns)}"
    for name, width in columns.items():
        if np.shape(frame.columns[name]) != (width,):
            return f"with {np.shape(frame.columns[name])} values of the column {name}; the listing says ({width},)"
    return ""


def _size(frame: Frame) -> str:
    height, width = frame.pixels.shape[:2]
    return f"{width}x{height}"


def _names(columns: Mapping[str, object]) -> str:
    return ", ".join(sorted(columns)) or "none"
