"""HDF5 files of robomimic (`data/demo_N/obs/*_image`) and of ALOHA and ACT (`observations/images/CAMERA`).

Each camera of a demonstration is an episode. Layouts: robomimic docs/datasets/overview.md; ACT record_sim_episodes.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robossl.data.files import any_file, find_files, fingerprint, unreadable_reason
from robossl.data.labels import NO_LABELS, split_name
from robossl.data.manifest import Problem
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.sources.array_rows import (
    RowReader,
    check_length,
    column_width,
    common_columns,
    import_reader,
    is_camera,
    join_names,
    split_names,
    to_pixels,
)
from robossl.errors import InputError, reason

SUFFIXES = frozenset({".hdf5", ".h5"})
ALOHA_FPS, DEFAULT_FPS = 50.0, 10.0  # ACT's constants.py has DT = 0.02

_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Hdf5Demo:
    """One demonstration in a file: the paths of its cameras and columns."""

    path: str
    frames_per_s: float
    task: str = ""
    split: str = ""
    cameras: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)


class Hdf5Source:
    """Reads the HDF5 files under a folder, or one file."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        if labels not in (None, NO_LABELS):
            raise InputError("--labels is for videos, images and tars; an HDF5 file contains its own tasks")
        self._root = root if root.is_dir() else root.parent
        self._only = root.name if root.is_file() else None
        self._image_fps = (options or SourceOptions()).image_fps
        self._rows = RowReader()
        self._open: tuple[str, Any] | None = None

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is an HDF5 file, or a folder with one."""
        return root.suffix.lower() in SUFFIXES if root.is_file() else any_file(root, SUFFIXES)

    def listing(self) -> Listing:
        """List one unit (episode) per camera and demonstration; read no frame."""
        import_reader("h5py", "hdf5")
        if self._only is None:
            paths, skipped = find_files(self._root, SUFFIXES)
        else:
            why = unreadable_reason(self._root, self._only)
            paths, skipped = ([], [Problem(self._only, why)]) if why else ([self._only], [])
        units: list[Unit] = []
        widths: dict[str, dict[str, int]] = {}
        rates: dict[float, str] = {}
        for path in paths:
            try:
                for demo in self._demos(path):
                    found = self._units(path, demo)
                    units += found
                    widths[f"{path}/{demo.path}".rstrip("/")] = demo.widths
                    rates.setdefault(demo.frames_per_s, path)
            except (Damaged, OSError, RuntimeError, KeyError) as error:
                skipped.append(Problem(path, f"cannot be read as HDF5 episodes ({reason(error)})"))
        columns, notes = common_columns(widths)
        kept = [replace(unit, address=unit.address | _kept(unit, columns)) for unit in units]
        remarks = tuple(
            f"frames of {path} are read at {rate:g} frames/s (--image-fps changes the rate)"
            for rate, path in rates.items()
        )
        kept.sort(key=lambda unit: unit.key)
        return Listing(kept, tuple(skipped), tuple(notes), columns, remarks)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the frames of a camera, each with the rows of the columns."""
        file, address = self._file(str(unit.address["file"])), unit.address
        try:
            camera = file[str(address["camera"])]
            columns = {
                name: file[path] for name, path in (line.split("=", 1) for line in split_names(address["columns"]))
            }
            for name, column in columns.items():
                check_length(name, column, camera.shape[0])
            values = {name: column[:].astype(np.float32).reshape(len(column), -1) for name, column in columns.items()}
            for number in range(camera.shape[0]):
                picture = np.asarray(self._rows.row(camera.name, camera, number))
                picture = np.frombuffer(picture.item(), np.uint8) if picture.dtype.kind in "SO" else picture
                yield Frame(
                    to_pixels(picture),
                    number / float(address["frames_per_s"]),
                    {name: matrix[number] for name, matrix in values.items()},
                )
        except (OSError, RuntimeError, KeyError) as error:
            raise Damaged(f"cannot be read ({reason(error)})") from error

    def _file(self, path: str) -> Any:
        if self._open is None or self._open[0] != path:
            if self._open is not None:
                self._open[1].close()
            self._rows.clear()
            self._open = path, import_reader("h5py", "hdf5").File(self._root / path, "r")
        return self._open[1]

    def _demos(self, path: str) -> list[Hdf5Demo]:
        file = self._file(path)
        if "observations" in file:
            found = [_aloha_demo(file, self._image_fps or ALOHA_FPS)]
        elif "data" in file and hasattr(file["data"], "keys"):
            found = _robomimic_demos(file, self._image_fps)
        else:
            raise Damaged(f"holds {', '.join(file) or 'nothing'}; data/demo_0 or observations/images is needed")
        if not any(demo.cameras for demo in found):
            raise Damaged("holds no camera; (n, h, w, 3) in uint8 or JPEG bytes are needed")
        return found

    def _units(self, path: str, demo: Hdf5Demo) -> list[Unit]:
        number = _NUMBER.sub(lambda match: match[0].zfill(6), demo.path.removeprefix("data/"))
        recording = f"{path}/{number}".rstrip("/")
        columns = join_names([f"{name}={place}" for name, place in demo.columns.items()])
        return [
            Unit(
                key=f"{recording}/{name}",
                fingerprint=f"{fingerprint(self._root / path)}@{demo.frames_per_s:g}",
                num_frames=max(1, self._file(path)[place].shape[0]),
                split=demo.split,
                labels={"camera": name, "recording": recording} | ({"task": demo.task} if demo.task else {}),
                address={"file": path, "camera": place, "frames_per_s": demo.frames_per_s, "columns": columns},
            )
            for name, place in demo.cameras.items()
        ]


def _kept(unit: Unit, columns: dict[str, int]) -> dict[str, str | int | float]:
    lines = split_names(unit.address["columns"])
    return {"columns": join_names([line for line in lines if line.split("=", 1)[0] in columns])}


def _robomimic_demos(file: Any, image_fps: float | None) -> list[Hdf5Demo]:
    data = file["data"]
    try:
        stated = json.loads(data.attrs.get("env_args", "{}"))
        rate = float(stated.get("env_kwargs", {}).get("control_freq") or DEFAULT_FPS)
        task = str(stated.get("env_name", ""))
    except (ValueError, TypeError, AttributeError):
        rate, task = DEFAULT_FPS, ""
    splits: dict[str, str] = {}
    for name in file.get("mask", {}):
        if split_name(name):
            splits |= {_text(demo): split_name(name) for demo in file["mask"][name][:]}
    demos = []
    for name in data:
        demo = Hdf5Demo(f"data/{name}", image_fps or rate, task, splits.get(name, ""))
        for key, array in {**data[name], **data[name].get("obs", {})}.items():
            _add(demo, key, array)
        demos.append(demo)
    return demos


def _aloha_demo(file: Any, frames_per_s: float) -> Hdf5Demo:
    demo = Hdf5Demo("", frames_per_s)
    observations = file["observations"]
    for name, array in {**file, **observations}.items():
        _add(demo, name, array)
    for name, array in observations.get("images", {}).items():
        if hasattr(array, "shape") and (is_camera(array) or _holds_bytes(array)):
            demo.cameras[name] = array.name
    return demo


def _add(demo: Hdf5Demo, key: str, array: Any) -> None:
    if not hasattr(array, "shape"):
        return  # a group
    if is_camera(array):
        demo.cameras[key.removesuffix("_image")] = array.name
    elif width := column_width(array):
        name = {"actions": "action", "states": "state", "qpos": "state"}.get(key, key)
        if key != "compress_len":
            demo.columns[name], demo.widths[name] = array.name, width


def _holds_bytes(array: Any) -> bool:
    padded = array.dtype == np.uint8 and len(array.shape) == 2
    return padded or (array.dtype.kind in "SO" and len(array.shape) == 1)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
