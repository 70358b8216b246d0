"""Where frames come from: a store, a folder in the TUM layout, or an environment."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path

from robossl.errors import InputError
from robossl.names import unknown
from robossl.plugins import PROBE_FRAMES
from robossl.probes.frames import Frames, LabelType


def open_frames(
    source: str,
    *,
    split: str | None = None,
    columns: Mapping[LabelType, str] | None = None,
    num_scenes: int = 2500,
    image_size: int = 96,
    seed: int = 0,
) -> Frames:
    """Frames to probe an encoder with.

    Args:
        source: a store, a folder with `rgb.txt` and `groundtruth.txt` (TUM RGB-D layout), or `env:ID` of one of our
            environments.
        split: of a store; the whole of it by default.
        columns: per-frame columns of a store that are labels: the type of each and its name in the store.
        num_scenes: of an environment.
        image_size: of an environment, pixels.
        seed: of the choice of frames in a store, of the scenes of an environment.

    Raises:
        InputError: nothing there can be read as frames.
    """
    kind, colon, name = source.partition(":")
    is_posed = (Path(source) / "groundtruth.txt").is_file()
    if (split or columns) and (is_posed or (colon and kind in PROBE_FRAMES)):
        option = "--split" if split else "--columns"
        raise InputError(f"{option} is for stores, got it with {source}; leave it out")
    if colon and kind in PROBE_FRAMES:
        opened: Frames = pkgutil.resolve_name(PROBE_FRAMES[kind])(
            name, num_scenes=num_scenes, image_size=image_size, seed=seed
        )
        return opened
    if colon and not Path(source).exists():
        raise InputError(f"{unknown('source of frames', kind, [*PROBE_FRAMES])}, or a folder")
    if is_posed:
        from robossl.probes.sources.tum import TumFrames

        return TumFrames(Path(source))
    from robossl.data.store import open_store
    from robossl.probes.sources.store import StoreFrames

    return StoreFrames(open_store(Path(source)), split=split, columns=columns or {}, seed=seed)
