"""Help for the tests of cached features: views as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robossl.measure.features import ViewFile


def write_views(folder: Path, *, num_views: int = 2, num_frames: int = 150) -> list[ViewFile]:
    rng = np.random.default_rng(0)
    views = []
    for i in range(num_views):
        np.save(folder / f"view{i}.npy", rng.integers(0, 255, (num_frames, 16, 20, 3), dtype=np.uint8))
        views.append(ViewFile(folder / f"view{i}.npy", f"{i}" * 64))
    return views
