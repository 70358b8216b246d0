"""Compute how a view (transformed frame) moves points, for factors of the picture and of the scene."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors import resolve_factor
from robossl.probes.views import RenderJob, Views


def to_view(views: Views, job: RenderJob) -> Float[ndarray, "n 3 3"] | None:
    """Return the homography from each clean frame to its transformed frame; None if the factor moves no point.

    Points are in the coordinates of labels: x right, y down, -1 to 1 over the width and the height. If a factor
    moves the scene's camera, its homographies are correct only for points on the ground.
    """
    factor = resolve_factor(job.factor)
    values, at = views.values(job), views.positions(job)
    if factor.warp is not None:
        return factor.warp(values, views.frames.hw)
    if not factor.name.startswith("camera_"):
        return None
    found = np.tile(np.eye(3), (len(at), 1, 1))
    for strength in np.unique(values[:, 0]):
        chosen = (values[:, 0] == strength) & (strength != factor.clean)
        if chosen.any():
            found[chosen] = views.frames.scene_warp(at[chosen], factor.name, int(strength))
    return found
