"""Open a source of frames for probes: a store, a folder in the TUM layout, or an environment."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path

from robossl.common.plugins import PROBE_FRAMES
from robossl.common.suggest import suggest_name
from robossl.errors import InputError
from robossl.probes.frames import LabelType, ProbeFrames


def open_frames(
    source: str,
    *,
    split: str | None = None,
    columns: Mapping[LabelType, str] | None = None,
    num_scenes: int = 2500,
    image_size: int = 96,
    seed: int = 0,
) -> ProbeFrames:
    """Open the frames to probe an encoder with.

    Args:
        source: A store, a folder with `rgb.txt` and `groundtruth.txt` (TUM RGB-D layout), or `env:ID` of one of our
            environments.
        split: Split of a store; None reads all frames.
        columns: Columns of a store to read as labels: maps the type of the label to the name of the column.
        num_scenes: Number of scenes of an environment.
        image_size: Height and width of the pictures of an environment, in pixels.
        seed: Seed for the choice of frames in a store and for the scenes of an environment.

    Raises:
        InputError: the source cannot be read as frames, or an option does not fit it.
    """
    kind, colon, name = source.partition(":")
    is_posed = (Path(source) / "groundtruth.txt").is_file()
    if (split or columns) and (is_posed or (colon and kind in PROBE_FRAMES)):
        option = "--split" if split else "--columns"
        raise InputError(f"{option} is for stores, got it with {source}; leave it out")
    if colon and kind in PROBE_FRAMES:
        opened: ProbeFrames = pkgutil.resolve_name(PROBE_FRAMES[kind])(
            name, num_scenes=num_scenes, image_size=image_size, seed=seed
        )
        return opened
    if colon and not Path(source).exists():
        raise InputError(f"{suggest_name('source of frames', kind, [*PROBE_FRAMES])}, or a folder")
    if is_posed:
        from robossl.probes.sources.tum import TumFrames

        return TumFrames(Path(source))
    from robossl.data.store import open_store
    from robossl.probes.sources.store import StoreProbeFrames

    return StoreProbeFrames(open_store(Path(source)), split=split, columns=columns or {}, seed=seed)
