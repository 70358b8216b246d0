"""A folder of images: sub-folders are labels, top folders named train, val or test are splits; a csv may add labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robossl.data.files import IMAGE_SUFFIXES, any_file, find_files, fingerprint
from robossl.data.labels import label_from_path, match_labels
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Frame, Listing, Unit


class ImageFolderSource:
    """Every image is an episode of one frame."""

    def __init__(self, root: Path, labels: Path | None = None) -> None:
        self._root = root
        self._labels = labels

    @staticmethod
    def accepts(root: Path) -> bool:
        """A folder with at least one image, readable or not."""
        return root.is_dir() and any_file(root, IMAGE_SUFFIXES)

    def listing(self) -> Listing:
        """One unit an image."""
        paths, skipped = find_files(self._root, IMAGE_SUFFIXES)
        known = {*paths, *(problem.path for problem in skipped)}
        table = match_labels(self._root, self._labels, known)
        missing = [Problem(path, "listed in the csv, missing") for path in table.rows if path not in known]
        units = []
        for path in paths:
            split, labels = label_from_path(path)
            units.append(
                Unit(path, fingerprint(self._root / path), 1, table.split(path) or split, labels | table.labels(path))
            )
        return Listing(units, (*skipped, *missing, *table.problems))

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """The one frame."""
        yield Frame(decode_image((self._root / unit.key).read_bytes()))
