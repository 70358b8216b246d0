"""Find the images of a folder that are the frames of one episode, and their order.

Photographs are numbered too (`apple/apple_001.jpg`), so numbers are not enough. The images of a folder form an episode
if their numbers have few gaps and one more thing is true: the folder is named like an episode (`episode_3`), or
neighbouring images look alike.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from robossl.data.pictures import FORMATS

MIN_FRAMES = 4  # minimum number of frames of an episode whose folder is not named like an episode
DENSE = 0.5  # minimum of (images) / (images + missing images) in an episode
NUM_PAIRS = 4  # number of pairs of neighbouring images to compare
# The difference of two images is the mean absolute difference of the pixels of their 32x32 grey thumbnails, 0 to 255.
# Neighbouring images of one video differ by at most ALIKE. If the camera hardly moves, they differ by at most STILL.
# Measured on video of a hand-held camera (7-Scenes): 9 between neighbours, 63 between frames far apart.
# Measured on the classes of a photograph data set: 35 to 64 between neighbours.
ALIKE, STILL = 30.0, 6.0
# Limit for a moving camera: (difference between neighbours) / (difference between frames far apart) is at most this.
NEARER = 0.7

_NUMBERS = re.compile(r"(\d+)")
# This pattern reads a time such as 1305031102.175304 as one number.
_NUMBERS_AND_SECONDS = re.compile(r"((?<![\d.])\d+\.\d+$|\d+)")
_EPISODE = re.compile(
    r"(^|[^a-z])(ep|episode|traj|trajectory|demo|seq|sequence|clip|video|vid|take|run|rollout)s?[^a-z0-9]*\d+$", re.I
)


@dataclass(frozen=True, slots=True)
class ImageSequence:
    """Images of one folder whose names differ in a number."""

    key: str  # the folder, plus the common part of the names if the folder holds several sequences
    folder: str
    paths: tuple[str, ...]  # paths of the images, sorted by number
    numbers: tuple[int, ...]

    @property
    def places(self) -> list[int]:
        """The time index of each frame, from 0; a missing number leaves a gap.

        If the numbers have a constant step, such as every tenth frame, they count as consecutive.
        """
        step = math.gcd(*(b - a for a, b in pairwise(self.numbers))) or 1
        return [(number - self.numbers[0]) // step for number in self.numbers]

    @property
    def num_missing(self) -> int:
        """Number of frames that are missing between the first and the last one, judged by their numbers."""
        return self.places[-1] + 1 - len(self.numbers)

    @property
    def is_dense(self) -> bool:
        """Whether the numbers have few gaps, as frame numbers do. Identifiers have many gaps."""
        return len(self.numbers) >= DENSE * (self.places[-1] + 1)


def find_sequences(paths: Iterable[str], root_name: str) -> list[ImageSequence]:
    """Group images by their folder and by the common part of their names.

    A group in which two images have the same number is not a sequence.
    """
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for folder, names in _by_folder(paths).items():
        for common, numbers in _numbered(names).items():
            groups[folder, common] = numbers
    num_groups = Counter(folder for folder, _ in groups)
    found = []
    for (folder, common), numbers in groups.items():
        if len(numbers) < 2 or len(set(numbers.values())) < len(numbers):
            continue
        key = folder or root_name
        key = f"{key}/{common.strip('-_. ') or 'frames'}" if num_groups[folder] > 1 else key
        ordered = sorted(numbers, key=numbers.__getitem__)
        in_order = tuple(f"{folder}/{name}" if folder else name for name in ordered)
        found.append(ImageSequence(key, folder, in_order, tuple(numbers[name] for name in ordered)))
    keys = Counter(sequence.key for sequence in found)
    return [sequence for sequence in found if keys[sequence.key] == 1]


def _by_folder(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        found.setdefault(folder, []).append(name)
    return found


def _numbered(names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Group the images of one folder by the common part of their names; return the number of each image.

    If names have several numbers (`frame3_cam1`), use the one with the most different values; in a tie, the last.
    Images of two formats (.jpg and .png) form one group, unless two of them then have the same number.
    """
    alike: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name, parts in _parts(names).items():
        if len(parts) > 1:
            alike.setdefault(tuple(parts[::2]), {})[name] = parts
    found: dict[str, dict[str, int]] = {}
    for some in alike.values():
        columns = list(zip(*some.values(), strict=True))
        place = max(range(1, len(columns), 2), key=lambda i: (len(set(columns[i])), i))
        groups: dict[str, dict[str, int]] = {}
        for name, parts in some.items():
            common = "".join(parts[:place] + parts[place + 1 :])
            groups.setdefault(common, {})[name] = int(parts[place].replace(".", ""))
        for common, numbers in groups.items():
            if len(set(numbers.values())) == len(numbers):
                found.setdefault(common, {}).update(numbers)
                continue
            for name, number in numbers.items():
                found.setdefault(common + Path(name).suffix.lower(), {})[name] = number
    return found


def _parts(names: Sequence[str]) -> dict[str, list[str]]:
    """Split each name of a folder into words and numbers.

    A decimal number counts as one number if all numbers of the folder have equally many decimals.
    """
    stems = {name: name.rpartition(".")[0] for name in names}
    parts = {name: _NUMBERS_AND_SECONDS.split(stem) for name, stem in stems.items()}
    digits = {len(part.partition(".")[2]) for found in parts.values() for part in found[1::2]}
    return parts if len(digits) == 1 else {name: _NUMBERS.split(stem) for name, stem in stems.items()}


def is_named_episode(folder: str) -> bool:
    """Return whether a folder is named like an episode, such as `episode_3`."""
    return bool(_EPISODE.search(folder))


def is_episode(root: Path, sequence: ImageSequence) -> bool:
    """Return whether numbered images are one recording. If their names do not show it, decode a few images."""
    if not sequence.is_dense:
        return False
    if any(map(is_named_episode, sequence.key.split("/")[-2:])):
        return True
    # Images directly in the source folder may be unrelated pictures. They are an episode only if its name says so.
    return bool(sequence.folder) and len(sequence.paths) >= MIN_FRAMES and _looks_continuous(root, sequence)


def _looks_continuous(root: Path, sequence: ImageSequence) -> bool:
    """Return whether neighbouring images look alike, as in a video.

    Neighbours must also be nearly equal (as with a still camera), or much more alike than images that are far apart in
    the sequence.
    """
    last = len(sequence.paths) - 1
    first_places = sorted(set(np.linspace(0, last - 1, NUM_PAIRS).round().astype(int).tolist()))
    near = _difference(root, [(sequence.paths[i], sequence.paths[i + 1]) for i in first_places])
    far = _difference(
        root, [(sequence.paths[i], sequence.paths[(i + last // 2 + 1) % (last + 1)]) for i in first_places]
    )
    return near <= ALIKE and (near <= STILL or near <= NEARER * far)


def _difference(root: Path, pairs: Iterable[tuple[str, str]]) -> float:
    """Return the median difference of pairs of images, from 0 to 255.

    Return inf if the two images of a pair have different sizes, or if no pair can be read.
    """
    differences = []
    for one, other in ((_thumbnail(root / a), _thumbnail(root / b)) for a, b in pairs):
        if one is None or other is None:
            continue  # a damaged image is reported when it is read
        if one[0] != other[0]:
            return math.inf  # images of different sizes are no video
        differences.append(float(np.abs(one[1] - other[1]).mean()))
    return float(np.median(differences)) if differences else math.inf


def _thumbnail(path: Path) -> tuple[tuple[int, int], Float[ndarray, "32 32"]] | None:
    try:
        with Image.open(path, formats=FORMATS) as image:
            size = image.size
            # `draft` makes Pillow decode a JPEG at a fraction of its size, which is faster.
            image.draft("L", (64, 64))
            return size, np.asarray(image.convert("L").resize((32, 32), Image.Resampling.NEAREST), np.float64)
    except Exception:  # Pillow's readers raise any error for damaged bytes
        return None
