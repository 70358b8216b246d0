"""Zarr replay buffers of Diffusion Policy and UMI (`data/...`, `meta/episode_ends`): folders, `.zarr.zip`, v2, v3.

Each camera of an episode becomes one episode. Layout: diffusion_policy/common/replay_buffer.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy import ndarray

from robossl.data.files import any_file, find_files, fingerprint, unreadable_reason
from robossl.data.labels import NO_LABELS
from robossl.data.manifest import Problem
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.sources.array_rows import (
    RowReader,
    column_width,
    common_columns,
    import_reader,
    is_camera,
    join_names,
    split_names,
    to_pixels,
)
from robossl.errors import InputError, reason

DEFAULT_FPS = 10.0  # Diffusion Policy's PushT; UMI records at 59.94
_METADATA = (".zgroup", "zarr.json")
_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, BadZipFile)


class ZarrSource:
    """Reads the replay buffers under a folder, or one buffer."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        if labels not in (None, NO_LABELS):
            raise InputError("--labels is for videos, images and tars; a Zarr replay buffer has no labels")
        self._is_one = root.is_file() or _is_store(root)
        self._root = root.parent if self._is_one else root
        self._only = root.name if self._is_one else None
        self._frames_per_s = (options or SourceOptions()).image_fps or DEFAULT_FPS
        self._rows = RowReader()
        self._open: tuple[str, Any] | None = None

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a Zarr store, or a folder with one."""
        if root.is_file():
            return root.name.lower().endswith(".zarr.zip")
        return bool(_find_folders(root)) or any_file(root, {".zarr.zip"})

    def listing(self) -> Listing:
        """List one unit (episode) per camera and episode; read `episode_ends` and the shapes only."""
        import_reader("zarr", "zarr")
        paths, skipped = self._paths()
        units: list[Unit] = []
        widths: dict[str, dict[str, int]] = {}
        for path in paths:
            try:
                widths[path] = self._list_store(path, units, skipped)
            except (Damaged, *_ERRORS) as error:
                skipped.append(Problem(path, f"cannot be read as a replay buffer ({reason(error)})"))
        columns, notes = common_columns(widths)
        address: dict[str, str | int | float] = {"columns": join_names(list(columns))}
        units = [replace(unit, address=unit.address | address) for unit in units]
        units.sort(key=lambda unit: unit.key)
        remark = f"episodes are read at {self._frames_per_s:g} frames/s (--image-fps changes the rate)"
        return Listing(units, tuple(skipped), tuple(notes), columns, (remark,) if units else ())

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the frames of a camera in an episode, each with its row of the columns."""
        address = unit.address
        begin, end = int(address["begin"]), int(address["end"])
        try:
            data = self._store(str(address["store"]))["data"]
            columns = {
                name: np.asarray(data[name][begin:end], np.float32).reshape(end - begin, -1)
                for name in split_names(address["columns"])
            }
            name = str(address["camera"])
            camera = data[name]
            for number in range(end - begin):
                picture = _to_bytes(self._rows.row(name, camera, begin + number), float(address["scale"]))
                values = {column: matrix[number] for column, matrix in columns.items()}
                yield Frame(to_pixels(picture), number / float(address["frames_per_s"]), values)
        except _ERRORS as error:
            raise Damaged(f"cannot be read ({reason(error)})") from error

    def _paths(self) -> tuple[list[str], list[Problem]]:
        if self._only is None:
            paths, skipped = find_files(self._root, {".zarr.zip"})
            return sorted([*paths, *_find_folders(self._root)]), skipped
        is_file = (self._root / self._only).is_file()
        why = unreadable_reason(self._root, self._only) if is_file else ""
        return ([], [Problem(self._only, why)]) if why else ([self._only], [])

    def _store(self, path: str) -> Any:
        if self._open is None or self._open[0] != path:
            zarr = import_reader("zarr", "zarr")
            # UMI compresses pictures as JPEG XL, with a codec that the package imagecodecs has.
            with suppress(InputError):
                import_reader("imagecodecs.numcodecs", "zarr").register_codecs(verbose=False)
            self._rows.clear()
            place = self._root / path
            store = zarr.storage.ZipStore(place, mode="r") if place.is_file() else place
            self._open = path, zarr.open_group(store, mode="r")
        return self._open[1]

    def _list_store(self, path: str, units: list[Unit], skipped: list[Problem]) -> dict[str, int]:
        """Append the units of one store; return the widths of its columns."""
        group = self._store(path)
        if "data" not in group or "meta/episode_ends" not in group:
            raise Damaged(f"holds {', '.join(sorted(group)) or 'nothing'}; data and meta/episode_ends are needed")
        ends = np.asarray(group["meta/episode_ends"][:]).astype(np.int64)
        arrays = dict(group["data"].arrays())
        if not len(ends) or (np.diff(ends, prepend=0) <= 0).any():
            raise Damaged("meta/episode_ends must hold increasing numbers of rows")
        short = [name for name, array in arrays.items() if array.shape[0] < ends[-1]]
        if short:
            raise Damaged(f"data/{short[0]} has {arrays[short[0]].shape[0]} rows, but the episodes end at {ends[-1]}")
        cameras = {name: array for name, array in arrays.items() if _is_picture(array)}
        if not cameras:
            raise Damaged("holds no camera; an array (n, h, w, 3) is needed")
        # A folder's time changes if a chunk is replaced; zarr writes a new file and renames it.
        place = self._root / path
        folders = [place, *(place / "data" / name for name in arrays)] if place.is_dir() else [place]
        print_ = f"{fingerprint(*folders)}@{ends[-1]}@{self._frames_per_s:g}"
        for name, camera in cameras.items():
            missing = camera.nchunks - camera.nchunks_initialized
            if missing:  # Zarr would return black pictures without a word
                skipped.append(Problem(f"{path}/data/{name}", f"{missing} of {camera.nchunks} chunks are missing"))
                continue
            scale = 1.0 if camera.dtype == np.uint8 or float(np.max(camera[:1])) > 1 else 255.0
            for episode, (begin, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
                recording = f"{path}/episode_{episode:06d}"
                address: dict[str, str | int | float] = {"store": path, "camera": name, "begin": begin, "end": end}
                address |= {"frames_per_s": self._frames_per_s, "scale": scale}
                labels = {"camera": name, "recording": recording}
                units.append(Unit(f"{recording}/{name}", print_, end - begin, labels=labels, address=address))
        return {name: column_width(array) for name, array in arrays.items() if column_width(array)}


def _is_store(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).is_file() for name in _METADATA)


def _find_folders(root: Path) -> list[str]:
    """Return the relative paths of the outermost Zarr folders under `root`."""
    found = []
    for folder, folders, names in os.walk(root):
        if set(_METADATA) & set(names):
            found.append(Path(folder).relative_to(root).as_posix())
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return found


def _is_picture(array: Any) -> bool:
    # Diffusion Policy stores PushT's pictures as float32, 0 to 255.
    return is_camera(array) or (array.dtype.kind == "f" and len(array.shape) == 4 and array.shape[3] == 3)


def _to_bytes(picture: Any, scale: float) -> ndarray:
    pixels = np.asarray(picture)
    return pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels * scale), 0, 255).astype(np.uint8)
