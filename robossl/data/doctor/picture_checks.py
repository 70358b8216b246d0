"""Checks of decoded small frames, and of content that occurs twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from robossl.data.doctor.facts import MOMENTS, DataFacts, PictureFacts, TableFacts, find_runs
from robossl.data.doctor.finding import Defect, Level
from robossl.data.doctor.limits import DoctorLimits

NEAR = 0.5  # mean difference of neighbouring small frames, in grey levels, below which they are near-duplicates
MUCH_NEAR, SOME_NEAR = 0.5, 0.1  # shares of an episode that are worth a warning and a note
DARK, BRIGHT, FLAT = 16, 239, 3  # grey levels: all of a black frame below, of a white frame above; range of one colour
ALIKE = 1.0  # mean difference of two episodes, in grey levels, below which they show the same
BLOCK = 512  # episodes that are compared at a time


def check_frozen(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find long stretches of equal frames."""
    tables = {table.episode: table for table in facts.tables if table.columns}
    for picture in facts.pictures:
        spans = [
            (first - 1, end - 1)
            for first, end in find_runs(picture.repeats)
            if picture.seconds[end - 1] - picture.seconds[first - 1] >= limits.frozen_seconds
        ]
        if spans:
            table = tables.get(picture.episode) or tables.get(picture.episode.rpartition("/")[0])
            yield _frozen(picture, spans, table)
    for table in facts.tables if facts.is_store else []:
        if table.seconds is not None and len(table.seconds) > 1:
            steps = np.diff(table.seconds)
            longest = int(steps.argmax())
            if steps[longest] >= limits.frozen_seconds:
                detail = f"{steps[longest]:.1f} s from {table.seconds[longest]:.1f} s"
                level: Level = "note" if facts.is_thinned else "warning"  # a thinned store has such gaps by design
                remedy = "the camera froze, or frames are lost: look there, avoid clips across it"
                yield Defect(level, table.episode, "no new frame for a long time", remedy, detail)


def _frozen(picture: PictureFacts, spans: list[tuple[int, int]], table: TableFacts | None) -> Defect:
    first, end = max(spans, key=lambda span: span[1] - span[0])
    detail = f"{picture.seconds[end] - picture.seconds[first]:.1f} s from {picture.seconds[first]:.1f} s"
    columns = table.columns if table else {}
    moving = [name for name, values in columns.items() if _moves(values, spans)]
    if moving:
        remedy = "remove the stretch: its frames do not show what the robot does"
        return Defect("warning", picture.episode, f"the camera froze while {moving[0]} changed", remedy, detail)
    remedy = "ingest stores such a stretch once; check the camera"
    level: Level = "note" if columns else "warning"
    return Defect(level, picture.episode, "frames are equal for a long time", remedy, detail)


def _moves(values: Float32[ndarray, "n d"], spans: list[tuple[int, int]]) -> bool:
    return any(len(part := values[first : end + 1]) > 1 and bool((part != part[0]).any()) for first, end in spans)


def near_duplicates(picture: PictureFacts, min_seconds: float) -> Bool[ndarray, " n"]:
    """Return which frames nearly equal the frame before, in stretches of at least `min_seconds`."""
    close = np.concatenate([[False], picture.motion < NEAR])
    for first, end in find_runs(close):
        if picture.seconds[end - 1] - picture.seconds[first - 1] < min_seconds:
            close[first:end] = False
    return close


def check_near_duplicates(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find episodes of which a large share shows nearly the same as the frame before."""
    for picture in facts.pictures:
        share = float((near_duplicates(picture, limits.frozen_seconds) & ~picture.repeats).mean())
        if share >= SOME_NEAR:
            level: Level = "warning" if share >= MUCH_NEAR else "note"
            remedy = "thin them (robossl ingest --thin 0.5), or draw fewer clips from the episode"
            yield Defect(level, picture.episode, "long near-duplicate stretches", remedy, f"{share:.0%} of the frames")


def check_blank(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find frames that are black, white or of one colour."""
    for picture in facts.pictures:
        low, high = picture.darkest.astype(int), picture.brightest.astype(int)
        black, white = high < DARK, low > BRIGHT
        kinds = {"black": black, "white": white, "of one grey level": (high - low <= FLAT) & ~black & ~white}
        for kind, found in kinds.items():
            if found.any():
                first = int(found.argmax())
                detail = f"{found.sum()} of {len(found)} frames, the first at {picture.seconds[first]:.2f} s"
                remedy = "cut them off, or leave the episode out; check the exposure and the cable"
                level: Level = "error" if found.all() and kind != "of one grey level" else "warning"
                yield Defect(level, picture.episode, f"frames are {kind}", remedy, detail)


def check_sizes(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find episodes whose frames have another size than the metadata state, or than most of the same camera."""
    by_camera: dict[str, dict[str, str]] = defaultdict(dict)
    for video in facts.videos:
        if video.size:
            by_camera[video.camera][video.episode] = video.size
    for picture in facts.pictures:
        by_camera[picture.camera][picture.episode] = picture.size
    for camera, sizes in by_camera.items():
        usual = Counter(sizes.values()).most_common(1)[0][0]
        for episode, size in sizes.items():
            if size != facts.sizes.get(camera, size):
                remedy = "correct the shape in meta/info.json, or encode the videos again; lerobot trusts the shape"
                yield Defect("warning", episode, f"size differs from the stated {facts.sizes[camera]}", remedy, size)
            elif size != usual:
                remedy = "check that the camera was not changed; views are resized, so training runs"
                yield Defect("warning", episode, f"size differs from the usual {usual}", remedy, size)


def check_splits(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find content that occurs twice, above all in two splits."""
    seen: dict[str, TableFacts] = {}
    pairs: set[frozenset[str]] = set()
    for table in facts.tables:
        if not table.content:
            continue
        other = seen.setdefault(table.content, table)
        if other.episode != table.episode:
            pairs.add(frozenset((other.episode, table.episode)))
            yield _twice("error", table.episode, table.split, other.episode, other.split, "the same content")
    for number, other_number in _alike(facts.pictures):
        a, b = facts.pictures[number], facts.pictures[other_number]
        if frozenset((a.episode, b.episode)) not in pairs:
            yield _twice("warning", b.episode, b.split, a.episode, a.split, "nearly the same frames")


def _twice(level: Level, episode: str, split: str, other: str, other_split: str, what: str) -> Defect:
    if split == other_split:
        return Defect("note", episode, f"{what} as another episode", "remove one of them", f"as {other}")
    remedy = "put both into one split: a score on the other is not one on unseen data"
    detail = f"{split or 'no split'}, as {other} in {other_split or 'no split'}"
    return Defect(level, episode, f"{what} in two splits", remedy, detail)


def _alike(pictures: list[PictureFacts]) -> Iterator[tuple[int, int]]:
    """Yield pairs of moving episodes of equal length that show nearly the same at `MOMENTS` moments."""
    chosen = [
        number for number, each in enumerate(pictures) if len(each.seconds) >= MOMENTS and each.motion.max() > NEAR
    ]
    if not chosen:
        return
    signs = np.stack([pictures[number].moments.reshape(-1) for number in chosen])
    lengths = np.array([len(pictures[number].seconds) for number in chosen])
    for at, number in enumerate(chosen):
        near = np.flatnonzero(np.abs(lengths[at + 1 :] - lengths[at]) <= 0.02 * lengths[at]) + at + 1
        for block in range(0, len(near), BLOCK):
            rows = near[block : block + BLOCK]
            for other in rows[np.abs(signs[rows].astype(np.float32) - signs[at]).mean(1) < ALIKE]:
                yield number, chosen[other]
