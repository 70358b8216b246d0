"""Frames from an array: what the probes' tests look at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from robossl.probes.frames import Label, ViewUnavailableError


class Pictures:
    """Pictures without a past, each a cluster of its own unless told otherwise."""

    cluster_key = "picture"
    name = "pictures"
    labels: Mapping[str, Label]
    notes: tuple[str, ...] = ()

    def __init__(self, pixels: np.ndarray, clusters: np.ndarray | None = None) -> None:
        self._pixels = pixels
        self.hw = (pixels.shape[1], pixels.shape[2])
        self.clusters = np.arange(len(pixels)) if clusters is None else clusters
        self.labels = {}
        self.digest = hashlib.sha256(pixels.tobytes() + self.clusters.tobytes()).hexdigest()

    def clean(self, at: np.ndarray) -> np.ndarray:
        return self._pixels[at]

    def earlier(self, at: np.ndarray, frames: int) -> np.ndarray:
        raise ViewUnavailableError("pictures have no past")

    def scene(self, at: np.ndarray, factor: str, strength: int) -> np.ndarray:
        raise ViewUnavailableError("pictures cannot be changed")

    def scene_warp(self, at: np.ndarray, factor: str, strength: int) -> np.ndarray:
        raise ViewUnavailableError("pictures cannot be changed")
