"""Parts of an ingest: several processes or machines read one corpus, each into a store of its own.

Part 3 of 16 reads the episodes whose hash falls to it, so the parts need not know of each other. `robossl merge` joins
their stores.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from robossl.data.source import Unit
from robossl.errors import InputError


@dataclass(frozen=True, slots=True)
class Part:
    """One of `count` parts; `number` counts from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def deal(self, source: str, units: Sequence[Unit]) -> tuple[Unit, ...]:
        """Return the units (episodes) of a source that this part reads.

        The hash of the name of the source and the unit's key decides, so units that appear later move no others.
        """
        return tuple(unit for unit in units if self._falls_here(f"{source}/{unit.key}"))

    def _falls_here(self, name: str) -> bool:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1


def parse_part(text: str) -> Part:
    """Read a part from text such as "3/16".

    Raises:
        InputError: the text is no part, or its number is larger than the count.
    """
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise InputError(f"--part must be a number and a count, such as 3/16 for the third of 16 parts, got {text!r}")
    return Part(number, count)
