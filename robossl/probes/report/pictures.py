"""The pictures on the page: examples of changed frames, and frames that the encoder confuses with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.report.words import format_name
from robossl.report.html import data_uri, jpeg_uri

MAX_GROUPS, MAX_TRIPLES = 4, 4


@dataclass(frozen=True, slots=True)
class RetrievalErrors:
    """Wrong retrievals for frames that one factor changed at one level.

    Each triple has the changed frame, the unchanged frame that was found, and the unchanged frame that is correct.
    """

    factor: str
    level: int
    triples: tuple[tuple[UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w 3"]], ...]


class PictureGroup(NamedTuple):
    """Wrong retrievals of one factor at one level, with their pictures as data URIs."""

    name: str
    triples: tuple[tuple[str, ...], ...]


def make_sheet(sheet: Path | bytes | None) -> str:
    """Return the contact sheet, a PNG, as a data URI; "" if there is no sheet."""
    if sheet is None:
        return ""
    return data_uri(sheet if isinstance(sheet, bytes) else sheet.read_bytes(), "png")


def make_groups(errors: Sequence[RetrievalErrors]) -> list[PictureGroup]:
    """Return the first few wrong retrievals of the first few factors and levels that have some, with their pictures."""
    shown = [group for group in errors if group.triples][:MAX_GROUPS]
    return [
        PictureGroup(
            f"{format_name(group.factor)}, strength {group.level}",
            tuple(tuple(map(jpeg_uri, triple)) for triple in group.triples[:MAX_TRIPLES]),
        )
        for group in shown
    ]
