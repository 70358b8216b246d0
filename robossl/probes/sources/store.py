"""Frames of a store for probes. They have one size and are at least a second apart. Each episode is a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.common.suggest import suggest_name
from robossl.data.store import Store
from robossl.errors import InputError
from robossl.probes.frames import LATENCY_FRAMES, Label, LabelType, ViewUnavailableError
from robossl.probes.sources.recorded import RecordedFrames

# Minimum time between two frames of an episode. Closer frames are too similar. For example, 6.7 % of the frames in
# DROID differ from the next frame by less than one grey level.
SPACING_SECONDS = 1.0
MAX_CLASSES = 50
WIDTHS: dict[LabelType, int] = {"point": 2, "angle": 1, "pose": 7, "box": 4}


class StoreProbeFrames(RecordedFrames):
    """The frames of a store, or of one split of it."""

    cluster_key = "episode"

    def __init__(
        self,
        store: Store,
        *,
        split: str | None = None,
        columns: Mapping[LabelType, str] | None = None,
        seed: int = 0,
    ) -> None:
        """Choose the frames to probe with, and read their labels.

        Args:
            store: the store.
            split: split of the store; default: the whole store.
            columns: for each type of label, the name of the per-frame column to read; for type "class", the name of a
                label of the episodes.
            seed: seed of the random choice of the first frame in each episode.

        Raises:
            InputError: the split or a column does not exist, the split has no frames, or a column has the wrong width.
        """
        self._store = store
        self.name = store.path.resolve().name
        rows = store.rows(split)
        if not len(rows):
            raise InputError(f"{store.path} holds no frames{f' of split {split!r}' if split else ''}; ingest some")
        sizes, counts = np.unique(store.frame_hw[rows], axis=0, return_counts=True)
        self.hw = (int(sizes[counts.argmax()][0]), int(sizes[counts.argmax()][1]))
        alike = rows[(store.frame_hw[rows] == self.hw).all(1)]
        self._rows = _space_rows(store, alike, seed)
        episodes = store.episode_of(self._rows)
        self.clusters = episodes
        notes = []
        if len(alike) < len(rows):
            notes.append(
                f"left out {len(rows) - len(alike)} of {len(rows)} frames that are not {self.hw[0]} x {self.hw[1]}"
            )
        labels, left_out = _find_classes(store, episodes)
        notes += [f"left out the label {name}: {why}" for name, why in left_out.items()]
        given = {
            kind: _read_column(store, self._rows, kind, column, labels) for kind, column in (columns or {}).items()
        }
        labels.update({str(kind): label for kind, label in given.items()})
        self.labels: Mapping[str, Label] = labels
        self.notes = tuple(notes)
        chosen = hashlib.sha256(store.content_hash.encode())
        for part in (self._rows, *(labels[name].values for name in sorted(labels))):
            chosen.update(part.tobytes())
        self.digest = chosen.hexdigest()

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        """Return the unchanged frames at these positions."""
        return self._decode(self._rows[at])

    def earlier(self, at: Int[ndarray, " b"], frames: int) -> UInt8[ndarray, "b h w 3"]:
        """Return for each position the frame that the camera took `frames` frames earlier.

        Raises:
            ViewUnavailableError: some episodes are single pictures, which have no past.
        """
        store, rows = self._store, self._rows[at]
        if (np.diff(store.episode_start)[self.clusters] < 2).any():
            raise ViewUnavailableError("single pictures have no past")
        found = []
        for row, episode in zip(rows, store.episode_of(rows), strict=True):
            start, stop = store.episode_start[episode : episode + 2]
            times = store.time_seconds[start:stop]
            # The store leaves out repeated frames. Therefore find the earlier frame by its time, not by its row number.
            then = times[row - start] - frames * float(np.median(np.diff(times)))
            found.append(start + max(0, int(np.searchsorted(times, then + 1e-4, side="right")) - 1))
        return self._decode(np.array(found))

    def _decode(self, rows: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        decoded = self._store.decode(rows.tolist())
        return np.stack([frame.permute(1, 2, 0).numpy() for frame in decoded])


def _space_rows(store: Store, rows: Int[ndarray, " n"], seed: int) -> Int[ndarray, " m"]:
    """Return rows that are at least a second apart in each episode.

    The first frames of an episode are skipped, because the factor `latency` shows them in place of later frames.
    """
    episodes = store.episode_of(rows)
    chosen = []
    for own in np.split(rows, np.flatnonzero(np.diff(episodes)) + 1):
        own = own[min(LATENCY_FRAMES, len(own) - 1) :]
        times = store.time_seconds[own]
        first = np.random.default_rng((seed, int(own[0]))).random() * min(SPACING_SECONDS, times[-1] - times[0])
        far = [int(np.searchsorted(times, times[0] + first).clip(max=len(own) - 1))]
        while times[far[-1]] + SPACING_SECONDS <= times[-1]:
            far.append(int(np.searchsorted(times, times[far[-1]] + SPACING_SECONDS)))
        chosen.append(own[far])
    return np.concatenate(chosen)


def _find_classes(store: Store, episodes: Int[ndarray, " n"]) -> tuple[dict[str, Label], dict[str, str]]:
    """Return two dictionaries: labels of episodes that can be used, and the reasons why other labels were left out.

    A label with fewer than two classes is in neither of them.
    """
    found: dict[str, Label] = {}
    left_out: dict[str, str] = {}
    own = np.unique(episodes)
    for name in store.label_names:
        texts = store.labels(name)[episodes]
        classes = [str(each) for each in np.unique(texts) if each]
        if len(classes) > MAX_CLASSES:
            left_out[name] = f"more than {MAX_CLASSES} classes"
        elif len(classes) > 1 and len(classes) == np.count_nonzero(store.labels(name)[own] != ""):
            left_out[name] = "every class is one episode, so no other episode can test it"
        elif len(classes) > 1:
            numbers = np.where(texts == "", np.nan, np.searchsorted(classes, texts))
            found[name] = Label("class", numbers[:, None], tuple(classes))
    return found, left_out


def _read_column(
    store: Store, rows: Int[ndarray, " n"], kind: LabelType, column: str, classes: Mapping[str, Label]
) -> Label:
    """Return a column as a label of frames; if `kind` is "class", return the episode label whose name is `column`."""
    if kind not in WIDTHS:
        if column not in classes:
            raise InputError(suggest_name("label of classes", column, classes))
        return classes[column]
    values = store.column(column, rows).astype(np.float64)
    if values.shape[1] != WIDTHS[kind]:
        raise InputError(f"column {column!r} is {values.shape[1]} wide, a label of type {kind!r} is {WIDTHS[kind]}")
    return Label(kind, values)
