"""Folders of images: numbered frames of a folder are an episode, any other image is an episode of one frame.

Folders above are labels, top folders named train, val or test are splits; a csv may add labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from robossl.data.files import IMAGE_SUFFIXES, any_file, find_files, fingerprint
from robossl.data.labels import LabelTable, find_table, label_from_path, match_labels
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Damaged, Frame, Listing, Reading, Unit
from robossl.data.sources.image_sequences import ImageSequence, find_sequences, is_episode, is_named_episode


class ImageFolderSource:
    """Images under a folder."""

    def __init__(self, root: Path, labels: Path | None = None, reading: Reading | None = None) -> None:
        self._root = root
        self._labels = labels
        self._reading = reading or Reading()

    @staticmethod
    def accepts(root: Path) -> bool:
        """A folder with at least one image, readable or not."""
        return root.is_dir() and any_file(root, IMAGE_SUFFIXES)

    def listing(self) -> Listing:
        """One unit a folder of frames, and one for each other image."""
        paths, skipped = find_files(self._root, IMAGE_SUFFIXES)
        episodes, others = self._episodes(paths)
        framed = {path for episode in episodes for path in episode.paths}
        single = [path for path in paths if path not in framed]
        known = {*single, *(episode.key for episode in episodes), *(problem.path for problem in skipped)}
        table = match_labels(self._root, self._labels, known, self._reading.label_columns)
        missing = [Problem(path, "listed in the csv, missing") for path in table.rows if path not in known]
        units = [_unit(path, fingerprint(self._root / path), 1, table) for path in single]
        units += [self._episode(episode, table) for episode in episodes]
        units.sort(key=lambda unit: unit.key)
        gaps = tuple(
            Problem(episode.key, f"{episode.num_missing} numbers are missing between its frames; their time is kept")
            for episode in episodes
            if episode.num_missing
        )
        said = (*self._said(episodes, len(framed), others), *self._unread(single, others), *table.said)
        return Listing(units, (*skipped, *missing, *table.problems), gaps, said=said)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """The one frame, or the frames of the folder in the order of their numbers."""
        if "frames" not in unit.address:
            yield Frame(decode_image((self._root / unit.key).read_bytes()))
            return
        folder, frames_per_s = self._root / str(unit.address["folder"]), float(unit.address["frames_per_s"])
        shape: tuple[int, ...] | None = None
        for line in str(unit.address["frames"]).split("\n"):
            place, _, name = line.partition(" ")
            try:
                pixels = decode_image((folder / name).read_bytes())
            except Damaged as error:
                raise Damaged(f"{name}: {error}") from error
            if shape not in (None, pixels.shape):
                raise Damaged(f"{name} is {pixels.shape[1]}x{pixels.shape[0]}, the frames before it have another size")
            shape = pixels.shape
            yield Frame(pixels, int(place) / frames_per_s)

    def _episodes(self, paths: Sequence[str]) -> tuple[list[ImageSequence], list[ImageSequence]]:
        """The episodes, and the numbered images that are not taken for one."""
        if self._reading.image_folders == "images":
            return [], []
        found = find_sequences(paths, self._root.name)
        if self._reading.image_folders == "episodes":
            return found, []
        labelled = self._labelled()
        kept: list[ImageSequence] = []
        others: list[ImageSequence] = []
        for sequence in found:
            is_one = not labelled.intersection(sequence.paths) and is_episode(self._root, sequence)
            (kept if is_one else others).append(sequence)
        return kept, [sequence for sequence in others if sequence.is_dense]

    def _labelled(self) -> set[str]:
        """Images that a csv lists one by one: each has labels of its own."""
        found = find_table(self._root, self._labels)
        return set() if found is None else set(found[1].rows)

    def _episode(self, episode: ImageSequence, table: LabelTable) -> Unit:
        prints = "\n".join(fingerprint(self._root / path) for path in episode.paths)
        frames = [
            f"{place} {path.rpartition('/')[2]}" for place, path in zip(episode.places, episode.paths, strict=True)
        ]
        address: dict[str, str | int | float] = {
            "folder": episode.folder,
            "frames": "\n".join(frames),
            "frames_per_s": self._reading.image_fps,
        }
        print_ = f"{hashlib.blake2b(prints.encode(), digest_size=8).hexdigest()}@{self._reading.image_fps:g}"
        return _unit(episode.key, print_, len(episode.paths), table, address)

    def _said(self, episodes: Sequence[ImageSequence], num_frames: int, others: Sequence[ImageSequence]) -> list[str]:
        lines = []
        if episodes:
            lines.append(
                f"numbered images are read as {len(episodes)} episodes of {num_frames} frames in all "
                f"({episodes[0].key}, ...) at {self._reading.image_fps:g} frames/s (--image-fps changes it, "
                "--image-folders images reads each image by itself)"
            )
        if others:
            lines.append(
                f"numbered images of {len(others)} folders ({others[0].key}, ...) are read one by one: they differ as "
                "photographs do, are few, have labels of their own, or lie in no folder of their own (--image-folders "
                "episodes reads each folder as an episode)"
            )
        return lines

    def _unread(self, single: Sequence[str], others: Sequence[ImageSequence]) -> list[str]:
        """Say which folders are named like episodes and are none, unless that is asked for or was said."""
        known = self._labelled().union(*(sequence.paths for sequence in others))
        counts = Counter(path.rpartition("/")[0] for path in single if path not in known)
        folders = sorted(f for f, count in counts.items() if count > 1 and is_named_episode(f.rpartition("/")[2]))
        if not folders or self._reading.image_folders == "images":
            return []
        return [
            f"images of {len(folders)} folders named like episodes ({folders[0]}, ...) are read one by one: their "
            "names hold no numbers that count frames; name them 0.png, 1.png, ... to make each folder an episode"
        ]


def _unit(
    key: str, print_: str, num_frames: int, table: LabelTable, address: dict[str, str | int | float] | None = None
) -> Unit:
    split, labels = label_from_path(key)
    return Unit(key, print_, num_frames, table.split(key) or split, labels | table.labels(key), address or {})
