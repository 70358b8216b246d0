"""The store: the frames of many episodes, numbered by row. It is memory-mapped, so it opens in milliseconds.

An episode is a contiguous range of rows in time order. Ingest drops a frame that equals the frame before it, so the
frame that was seen at time t is the latest stored frame at or before t.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import simplejpeg
from jaxtyping import Bool, Float32, Float64, Int16, Int64, UInt8
from numpy import ndarray

from robossl.common.display import html_table
from robossl.common.paths import StrPath
from robossl.common.suggest import suggest_name
from robossl.data.index import LABEL, read_table
from robossl.data.manifest import Manifest, read_manifest
from robossl.data.shards import ShardReader, as_numpy
from robossl.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def open_store(path: StrPath) -> Store:
    """Open a store for reading. The returned store keeps its content even if an ingest adds to it later.

    Raises:
        InputError: `path` is not a store, its schema is unknown, or its first ingest did not finish.

    Example:
        >>> import robossl
        >>> store = robossl.open_store("stores/clips")
        >>> store.decode([0, 1])[0].shape  # uint8 RGB (3, h, w)
        torch.Size([3, 96, 171])
    """
    path = Path(path)
    manifest = read_manifest(path)
    if not manifest.index:
        raise InputError(f"{path} is unfinished: its first ingest was interrupted; run the same ingest command again")
    return Store(path, manifest)


class Store:
    """Reads frames by row number. Functions that take the path of a store also take a Store.

    A pickled store contains the path but no frames, so worker processes share the memory pages of the files.

    Example:
        >>> import robossl
        >>> store = robossl.open_store("stores/clips")
        >>> store.num_episodes, len(store.rows("train")), store.labels("scene").tolist()
        (4, 126, ['kitchen', 'kitchen', 'office', 'office'])
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._episodes = read_table(path / manifest.index / "episodes.arrow")
        self._frames = read_table(path / manifest.index / "frames.arrow")
        self._readers: dict[int, ShardReader] = {}

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        splits = f", splits {' '.join(filter(None, self.manifest.splits))}" if any(self.manifest.splits) else ""
        labels = f", labels {' '.join(self.label_names)}" if self.label_names else ""
        return f"Store({self.path}: {self.num_episodes} episodes, {self.num_frames} frames{splits}{labels})"

    def _repr_html_(self) -> str:
        rows = [
            (name or "(no split)", str(counts["episodes"]), str(counts["frames"]))
            for name, counts in self.manifest.splits.items()
        ]
        if len(rows) > 1:
            rows.append(("all", str(self.num_episodes), str(self.num_frames)))
        notes = [f"labels: {', '.join(self.label_names) or 'none'}", f"licences: {', '.join(self.manifest.licences)}"]
        return html_table(f"Store {self.path}", rows, header=("split", "episodes", "frames"), notes=notes)

    def __getstate__(self) -> tuple[Path, Manifest]:
        """Return the path and the manifest.

        The manifest names the index that was opened, so the unpickled store has the same content even if frames were
        added to the folder in the meantime.
        """
        return self.path, self.manifest

    def __setstate__(self, state: tuple[Path, Manifest]) -> None:
        """Open the store with the pickled path and manifest."""
        Store.__init__(self, *state)

    @property
    def num_frames(self) -> int:
        """Number of frames, one per row."""
        return self.manifest.num_frames

    @property
    def num_episodes(self) -> int:
        """Number of episodes; an image is an episode of one frame."""
        return self.manifest.num_episodes

    @property
    def content_hash(self) -> str:
        """Hash of the keys, frames, splits and labels of all episodes.

        The number of workers, the shards (files) and restarts of the ingest do not change it.
        """
        return self.manifest.content_hash

    def frames_hash(self, split: str | None) -> str:
        """Return a hash of the frames of a split and of their row numbers. Labels do not change it.

        Raises:
            InputError: no such split.
        """
        episodes = np.unique(self.episode_of(self.rows(split)))
        digest = hashlib.sha256()
        for start, content in zip(self.episode_start[episodes], self._texts("hash")[episodes], strict=True):
            digest.update(f"{start} {content}\n".encode())
        return digest.hexdigest()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.manifest.label_names

    @cached_property
    def episode_start(self) -> Int64[ndarray, " e_plus_1"]:
        """First row of each episode: episode i has rows episode_start[i] : episode_start[i + 1]."""
        return np.concatenate([[0], np.cumsum(self._numbers("num_frames"))])

    @cached_property
    def episode_id(self) -> ndarray:
        """Id of each episode, (e,) str: the name of its source, "/", and its path or number in the source."""
        return self._texts("id")

    @cached_property
    def episode_split(self) -> ndarray:
        """Split of each episode, (e,) str; "" if the source states no split."""
        return self._texts("split")

    @cached_property
    def end_seconds(self) -> Float64[ndarray, " e"]:
        """Time of each episode's last frame, in seconds since its first frame, even if ingest dropped this frame."""
        return self._numbers("end_seconds")

    @cached_property
    def time_seconds(self) -> Float64[ndarray, " n"]:
        """Time of each row's frame, in seconds since the start of its episode, as a memory-mapped array."""
        return as_numpy(_one_chunk(self._frames, "time_seconds"))

    @cached_property
    def frame_hw(self) -> Int16[ndarray, "n 2"]:
        """Height and width of each row's frame, as a memory-mapped array."""
        return as_numpy(_one_chunk(self._frames, "hw"))

    def labels(self, name: str) -> ndarray:
        """Return one label of every episode: (e,) str, "" if missing.

        Raises:
            InputError: no such label, or no labels at all.
        """
        if not self.label_names:
            again = shlex.join(["robossl", "ingest", self.manifest.sources[0].path, "--out", str(self.path)])
            raise InputError(
                f"{self.path} has no labels, got {name!r}; ingest with --labels into the same store, which reads no "
                f"video again: {again} --labels CSV (columns path and {name})"
            )
        if name not in self.label_names:
            raise InputError(f"{self.path}: {suggest_name('label', name, self.label_names)}")
        return self._texts(LABEL + name)

    def rows(self, split: str | None) -> Int64[ndarray, " m"]:
        """Return the rows of a split in order, or all rows if `split` is None.

        Raises:
            InputError: no such split.
        """
        if split is None:
            return np.arange(self.num_frames)
        if not any(self.manifest.splits):
            raise InputError(
                f"{self.path} has no splits, got {split!r}; take all of it (leave the split out; "
                "`--split-by episode` of evaluate and compare), or ingest --labels with a csv that has a column `split`"
            )
        if split not in self.manifest.splits:
            raise InputError(f"{self.path}: {suggest_name('split', split, self.manifest.splits)}")
        return np.flatnonzero(np.repeat(self.episode_split == split, np.diff(self.episode_start)))

    def episode_of(self, rows: Int64[ndarray, " m"]) -> Int64[ndarray, " m"]:
        """Return the episode number of each row."""
        return np.searchsorted(self.episode_start, rows, side="right") - 1

    def jpeg(self, row: int) -> UInt8[ndarray, " k"]:
        """Return the JPEG bytes of a row as a memory-mapped array."""
        shard, shard_row = self._places(np.array([row]))
        return self._reader(int(shard[0])).jpeg(int(shard_row[0]))

    def column(self, name: str, rows: Int64[ndarray, " m"]) -> Float32[ndarray, "m d"]:
        """Return a per-frame column (state, action, ...) at the given rows.

        Raises:
            InputError: a row belongs to a source without the column, or the sources disagree on its width.
        """
        have = {source.name: source.columns[name] for source in self.manifest.sources if name in source.columns}
        used = set(self._source[np.unique(self.episode_of(rows))])
        if used - have.keys() or len({have[source] for source in used}) > 1:
            known = ", ".join(f"{source} ({width} wide)" for source, width in have.items())
            raise InputError(
                f"column {name!r} is needed from {', '.join(sorted(used))}; "
                f"{f'{self.path} has it from {known}' if known else f'no source of {self.path} has it'}; "
                "ingest data with this column (LeRobot), or choose another column or method"
            )
        width = have[next(iter(used or have))]
        values = np.zeros((len(rows), width), np.float32)
        shards, shard_rows = self._places(rows)
        for shard in np.unique(shards):
            chosen = shards == shard
            values[chosen] = self._reader(int(shard)).gather(f"column:{name}", shard_rows[chosen])
        return values

    def has_column(self, name: str, episodes: Int64[ndarray, " m"]) -> Bool[ndarray, " m"]:
        """Return for each episode whether its source has a per-frame column."""
        have = [source.name for source in self.manifest.sources if name in source.columns]
        return np.isin(self._source[episodes], have)

    def decode(self, rows: Iterable[int]) -> list[Tensor]:
        """Decode frames to uint8 (3, h, w) tensors in channels-last memory."""
        import torch

        frames = []
        for row in rows:
            frames.append(torch.empty((*map(int, self.frame_hw[row]), 3), dtype=torch.uint8))
            self.decode_into(int(row), frames[-1])
        return [frame.permute(2, 0, 1) for frame in frames]

    def decode_into(self, row: int, out: UInt8[Tensor, "h w 3"]) -> None:
        """Decode the frame of a row into `out`, contiguous CPU memory of the frame's size."""
        simplejpeg.decode_jpeg(self.jpeg(row), "RGB", buffer=out.numpy())

    def _places(self, rows: ndarray) -> tuple[ndarray, ndarray]:
        episodes = self.episode_of(rows)
        return self._shard_of[episodes], self._first_row[episodes] + rows - self.episode_start[episodes]

    @cached_property
    def _shard_of(self) -> ndarray:
        return as_numpy(self._shards.indices)

    @cached_property
    def _shard_names(self) -> list[str]:
        return [str(name) for name in self._shards.dictionary.to_pylist()]

    @property
    def _shards(self) -> pa.DictionaryArray[Any, Any]:
        column = _one_chunk(self._episodes, "shard")
        assert isinstance(column, pa.DictionaryArray)
        return column

    @cached_property
    def _source(self) -> ndarray:
        return self._texts("source")

    @cached_property
    def _first_row(self) -> ndarray:
        return self._numbers("first_row")

    def _reader(self, shard: int) -> ShardReader:
        if shard not in self._readers:
            self._readers[shard] = ShardReader(self.path / "shards" / f"{self._shard_names[shard]}.arrow")
        return self._readers[shard]

    def _numbers(self, name: str) -> ndarray:
        return as_numpy(_one_chunk(self._episodes, name))

    def _texts(self, name: str) -> ndarray:
        return np.array(["" if text is None else text for text in self._episodes[name].to_pylist()], dtype=np.str_)


def _one_chunk(table: pa.Table, name: str) -> pa.Array[Any]:
    # Ingest writes every table of the index in one batch, so a column has exactly one chunk.
    (chunk,) = table[name].chunks
    return chunk
