"""Folders of numbered frames: which images of a folder are the frames of one episode, in which order.

Classes of photographs are numbered too (`apple/apple_001.jpg`), so numbers alone decide nothing. The images of a folder
are an episode if their numbers are dense and the folder is named like one (`episode_3`) or neighbours look alike.
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

MIN_FRAMES = 4  # in a folder that is not named like an episode
DENSE = 0.5  # share of the numbers between the first and the last that are there
NUM_PAIRS = 4  # neighbours that are compared
# Mean differences of pictures in 32x32 grey pixels, of 255. Measured on a hand-held camera (7-Scenes): neighbours 9,
# far apart 63; on the classes of a data set of photographs: 35 to 64.
ALIKE, STILL = 30.0, 6.0
NEARER = 0.7  # neighbours of a moving camera differ by less than this share of what images far apart do

_NUMBERS = re.compile(r"(\d+)")
_NUMBERS_AND_SECONDS = re.compile(r"((?<![\d.])\d+\.\d+$|\d+)")  # 1305031102.175304, a time, is one number
_EPISODE = re.compile(
    r"(^|[^a-z])(ep|episode|traj|trajectory|demo|seq|sequence|clip|video|vid|take|run|rollout)s?[^a-z0-9]*\d+$", re.I
)


@dataclass(frozen=True, slots=True)
class ImageSequence:
    """Images of one folder whose names differ in a number."""

    key: str  # the folder, and what the names have in common if the folder holds several sequences
    folder: str
    paths: tuple[str, ...]  # in the order of their numbers
    numbers: tuple[int, ...]

    @property
    def places(self) -> list[int]:
        """The place of each frame in time, from 0; a missing number leaves its place empty.

        Numbers that count by more than one, as when every tenth frame was extracted, are taken for neighbours.
        """
        step = math.gcd(*(b - a for a, b in pairwise(self.numbers))) or 1
        return [(number - self.numbers[0]) // step for number in self.numbers]

    @property
    def num_missing(self) -> int:
        """Places without a frame."""
        return self.places[-1] + 1 - len(self.numbers)

    @property
    def is_dense(self) -> bool:
        """Whether the numbers count something, and are no identifiers."""
        return len(self.numbers) >= DENSE * (self.places[-1] + 1)


def find_sequences(paths: Iterable[str], root_name: str) -> list[ImageSequence]:
    """Group images by folder and by what their names have in common; two images of one number are no sequence."""
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
    """Images of one folder by what they have in common, with the number of each.

    If a name has several numbers (`frame3_cam1`), the one with the most values counts; of equals, the last. A folder
    may mix two formats, unless a number then stands for two images.
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
    """Words and numbers of each name, in turn; a decimal number is one if all are of the same length."""
    stems = {name: name.rpartition(".")[0] for name in names}
    parts = {name: _NUMBERS_AND_SECONDS.split(stem) for name, stem in stems.items()}
    digits = {len(part.partition(".")[2]) for found in parts.values() for part in found[1::2]}
    return parts if len(digits) == 1 else {name: _NUMBERS.split(stem) for name, stem in stems.items()}


def is_named_episode(folder: str) -> bool:
    """Whether a folder is named like an episode, as `episode_3` is."""
    return bool(_EPISODE.search(folder))


def is_episode(root: Path, sequence: ImageSequence) -> bool:
    """Whether numbered images are the frames of a recording; a few neighbours are decoded if the names do not say."""
    if not sequence.is_dense:
        return False
    if any(map(is_named_episode, sequence.key.split("/")[-2:])):
        return True
    # Images right in the source may be one recording or a collection: only a name that says so makes them an episode.
    return bool(sequence.folder) and len(sequence.paths) >= MIN_FRAMES and _looks_continuous(root, sequence)


def _looks_continuous(root: Path, sequence: ImageSequence) -> bool:
    """Whether neighbours look alike, and more so than images far apart or hardly different at all."""
    last = len(sequence.paths) - 1
    first_places = sorted(set(np.linspace(0, last - 1, NUM_PAIRS).round().astype(int).tolist()))
    near = _difference(root, [(sequence.paths[i], sequence.paths[i + 1]) for i in first_places])
    far = _difference(
        root, [(sequence.paths[i], sequence.paths[(i + last // 2 + 1) % (last + 1)]) for i in first_places]
    )
    return near <= ALIKE and (near <= STILL or near <= NEARER * far)


def _difference(root: Path, pairs: Iterable[tuple[str, str]]) -> float:
    """The median difference of pairs of images; inf if their sizes differ or none can be read."""
    differences = []
    for one, other in ((_thumbnail(root / a), _thumbnail(root / b)) for a, b in pairs):
        if one is None or other is None:
            continue  # damaged: it is reported when it is read
        if one[0] != other[0]:
            return math.inf  # photographs
        differences.append(float(np.abs(one[1] - other[1]).mean()))
    return float(np.median(differences)) if differences else math.inf


def _thumbnail(path: Path) -> tuple[tuple[int, int], Float[ndarray, "32 32"]] | None:
    try:
        with Image.open(path, formats=FORMATS) as image:
            size = image.size
            image.draft("L", (64, 64))  # a JPEG is decoded at a fraction of its size
            return size, np.asarray(image.convert("L").resize((32, 32), Image.Resampling.NEAREST), np.float64)
    except Exception:  # Pillow's readers raise whatever the bytes provoke
        return None
