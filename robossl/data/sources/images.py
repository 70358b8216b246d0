"""Folders of images: the numbered frames of a folder are one episode, any other image is an episode of one frame.

Folder names are labels. Folders at the top that are named train, val or test are splits. A csv may add labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from robossl.common.counts import format_count
from robossl.data.files import IMAGE_SUFFIXES, any_file, find_files, fingerprint
from robossl.data.labels import LabelTable, find_table, label_from_path, match_labels
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.sources.image_sequences import ImageSequence, find_sequences, is_episode, is_named_episode


class ImageFolderSource:
    """Reads the images under a folder."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        self._root = root
        self._labels = labels
        self._options = options or SourceOptions()
        self._image_fps = self._options.image_fps or 10.0

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a folder with at least one image, readable or not."""
        return root.is_dir() and any_file(root, IMAGE_SUFFIXES)

    def listing(self) -> Listing:
        """List one unit (episode) per sequence of numbered frames, and one per remaining image."""
        paths, skipped = find_files(self._root, IMAGE_SUFFIXES)
        episodes, others = self._episodes(paths)
        framed = {path for episode in episodes for path in episode.paths}
        single = [path for path in paths if path not in framed]
        known = {*single, *(episode.key for episode in episodes), *(problem.path for problem in skipped)}
        table = match_labels(self._root, self._labels, known, self._options.label_columns)
        missing = [Problem(path, "listed in the csv, but missing") for path in table.rows if path not in known]
        units = [_unit(path, fingerprint(self._root / path), 1, table) for path in single]
        units += [self._episode(episode, table) for episode in episodes]
        units.sort(key=lambda unit: unit.key)
        gaps = tuple(
            Problem(
                episode.key,
                f"{format_count(episode.num_missing, 'frame number')} missing; the other frames keep their times",
            )
            for episode in episodes
            if episode.num_missing
        )
        remarks = (*self._episode_remarks(episodes, len(framed), others), *self._name_remarks(single, others))
        remarks += table.remarks
        return Listing(units, (*skipped, *missing, *table.problems), gaps, remarks=remarks)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the single image, or the numbered frames of the episode in the order of their numbers."""
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
                raise Damaged(
                    f"{name} is {pixels.shape[1]}x{pixels.shape[0]}, but the frames before it have a different size"
                )
            shape = pixels.shape
            yield Frame(pixels, int(place) / frames_per_s)

    def _episodes(self, paths: Sequence[str]) -> tuple[list[ImageSequence], list[ImageSequence]]:
        """Return the sequences that are episodes, and the sequences whose images are read one by one.

        The second list omits sequences with many gaps, whose numbers do not look like frame numbers.
        """
        if self._options.image_folders == "images":
            return [], []
        found = find_sequences(paths, self._root.name)
        if self._options.image_folders == "episodes":
            return found, []
        labelled = self._labelled()
        kept: list[ImageSequence] = []
        others: list[ImageSequence] = []
        for sequence in found:
            is_one = not labelled.intersection(sequence.paths) and is_episode(self._root, sequence)
            (kept if is_one else others).append(sequence)
        return kept, [sequence for sequence in others if sequence.is_dense]

    def _labelled(self) -> set[str]:
        """Return the paths in the csv of labels. An image with its own labels is not read as a frame of an episode."""
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
            "frames_per_s": self._image_fps,
        }
        print_ = f"{hashlib.blake2b(prints.encode(), digest_size=8).hexdigest()}@{self._image_fps:g}"
        return _unit(episode.key, print_, len(episode.paths), table, address)

    def _episode_remarks(
        self, episodes: Sequence[ImageSequence], num_frames: int, others: Sequence[ImageSequence]
    ) -> list[str]:
        """Say which numbered images are read as episodes and which are not."""
        lines = []
        if episodes:
            lines.append(
                f"numbered images are read as {format_count(len(episodes), 'episode')} of {num_frames} frames in all "
                f"({episodes[0].key}, ...) at {self._image_fps:g} frames/s (--image-fps changes the rate; "
                "--image-folders images reads each image by itself)"
            )
        if others:
            lines.append(
                f"numbered images of {format_count(len(others), 'folder')} ({others[0].key}, ...) are read one by one: "
                "they look like photographs, are few, have their own labels, or are not in a subfolder "
                "(--image-folders episodes reads each folder as an episode)"
            )
        return lines

    def _name_remarks(self, single: Sequence[str], others: Sequence[ImageSequence]) -> list[str]:
        """Say which folders are named like episodes, but are read image by image because the images have no numbers."""
        known = self._labelled().union(*(sequence.paths for sequence in others))
        counts = Counter(path.rpartition("/")[0] for path in single if path not in known)
        folders = sorted(f for f, count in counts.items() if count > 1 and is_named_episode(f.rpartition("/")[2]))
        if not folders or self._options.image_folders == "images":
            return []
        return [
            f"images of {format_count(len(folders), 'folder')} named like episodes ({folders[0]}, ...) are read one by "
            "one: their names have no frame numbers; name them 0.png, 1.png, ... to make each folder an episode"
        ]


def _unit(
    key: str, print_: str, num_frames: int, table: LabelTable, address: dict[str, str | int | float] | None = None
) -> Unit:
    split, labels = label_from_path(key)
    return Unit(key, print_, num_frames, table.split(key) or split, labels | table.labels(key), address or {})
