"""Encoders of known behaviour, scenes whose labels are known, and a whole probe of them without any file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from robossl.measure.figures import draw
from robossl.probes.decoding import FramePairs, decode
from robossl.probes.frames import Label
from robossl.probes.health import health
from robossl.probes.invariance import fit_space, invariance
from robossl.probes.profile import FactorNeed, Profile, Thresholds
from robossl.probes.result import Cell, Decoding, Figure, ProbeHealth, Readings, Retention
from robossl.probes.retrieval import retrieval, spread_gallery

Encode = Callable[[ndarray], ndarray]


def pixels(images: ndarray, cells: int = 16) -> ndarray:
    """Mean colour of 16 x 16 cells of square pictures."""
    n, side = images.shape[:2]
    size = side // cells
    blocks = images.reshape(n, cells, size, cells, size, -1).astype(np.float64)
    return blocks.mean(axis=(2, 4)).reshape(n, -1) / 255


def averaged(encode: Encode, group: tuple[Encode, ...]) -> Encode:
    """An encoder that is invariant to a group of exact transformations, by algebra."""
    return lambda images: np.mean([encode(act(images)) for act in group], axis=0)


def flip(images: ndarray) -> ndarray:
    return images[:, :, ::-1]


def turn(images: ndarray, quarters: int = 1) -> ndarray:
    return np.rot90(images, quarters, axes=(1, 2))


def flip_averaged(images: ndarray) -> ndarray:
    return averaged(pixels, (lambda x: x, flip))(images)


def rot4_averaged(images: ndarray) -> ndarray:
    return averaged(pixels, tuple(lambda x, k=k: turn(x, k) for k in range(4)))(images)


def constant(images: ndarray) -> ndarray:
    return np.full((len(images), 32), 0.37)


def rank_one(images: ndarray) -> ndarray:
    """The mean grey level times a fixed vector."""
    grey = images.reshape(len(images), -1).mean(axis=1, keepdims=True)
    return grey * np.random.default_rng(0).normal(size=(1, 32))


def near_constant(images: ndarray) -> ndarray:
    return 1 + 1e-4 * pixels(images)


def one_grey_level(images: ndarray, seed: int = 0) -> ndarray:
    noise = np.random.default_rng(seed).integers(-1, 2, images.shape)
    return np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Scenes:
    """Pictures with a bright spot whose place is known; `clusters` share a texture."""

    images: ndarray
    points: ndarray
    clusters: ndarray


def scenes(*, num_clusters: int, per_cluster: int, seed: int, upright: bool, side: int = 32) -> Scenes:
    """A spot on a texture; upright ones are brighter at the top left, so that which way is up can be seen."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(num_clusters), per_cluster) + 1000 * seed
    n = len(clusters)
    points = rng.uniform(-0.6, 0.6, size=(n, 2))
    place = (2 * np.arange(side) + 1) / side - 1
    x, y = np.meshgrid(place, place)
    spot = np.exp(-((x - points[:, :1, None]) ** 2 + (y - points[:, 1:, None]) ** 2) / (2 * 0.25**2))
    texture = rng.normal(size=(num_clusters, 4, 4)).repeat(per_cluster, axis=0)
    texture = texture.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    picture = 90 + 100 * spot + 5 * texture + 8 * rng.normal(size=(n, side, side))
    if upright:
        picture += -25 * x - 35 * y
    return Scenes(np.clip(picture, 0, 255).astype(np.uint8)[..., None], points, clusters)


@dataclass(frozen=True)
class Probe:
    """Reference and evaluated pictures; measures an encoder on them."""

    reference: ndarray
    images: ndarray
    clusters: ndarray

    def space(self, encode: Encode):
        return fit_space(encode(self.reference))

    @property
    def draws(self):
        return draw(self.clusters, num_resamples=400)

    @property
    def gallery(self) -> ndarray:
        return spread_gallery(self.clusters)

    def health(self, encode: Encode) -> ProbeHealth:
        clean, noisy = encode(self.images), encode(one_grey_level(self.images))
        return health(encode(self.reference), clean, noisy, self.space(encode), self.draws, self.gallery)

    def figures(self, encode: Encode, view: Encode) -> dict[str, Figure]:
        clean, moved, space = encode(self.images), encode(view(self.images)), self.space(encode)
        return {
            **invariance(clean, moved, space, self.draws),
            **retrieval(clean, moved, space, self.draws, self.gallery),
        }

    def decode(
        self, encode: Encode, views: tuple[Encode, ...], *, mlp: bool = True, factor: str = "factor", level: int = 1
    ) -> tuple[Decoding, ...]:
        """Which of some views a picture was shown in."""
        rng, drawn = np.random.default_rng(5), []
        for images in (self.reference, self.images):
            kinds = rng.permutation(np.arange(len(images)) % len(views))
            features = np.stack([encode(view(images)) for view in views])
            drawn.append(FramePairs(features[0], features[kinds, np.arange(len(images))], kinds[:, None].astype(float)))
        return decode(*drawn, self.draws, factor=factor, level=level, num_classes=len(views), mlp=mlp)

    def readings(self, encode: Encode, views: dict[str, Encode], retentions: tuple[Retention, ...] = ()) -> Readings:
        """All of it, each view as level 1 of a factor of its name."""
        return Readings(
            name=encode.__name__,
            health=self.health(encode),
            cells=tuple(
                Cell(factor, 1, metric, figure)
                for factor, view in views.items()
                for metric, figure in self.figures(encode, view).items()
            ),
            decodings=tuple(
                each
                for factor, view in views.items()
                for each in self.decode(encode, (lambda x: x, view), mlp=False, factor=factor)
            ),
            retentions=retentions,
        )


def spots(seen: Scenes) -> Label:
    return Label("point", seen.points)


def profile(needs: dict[str, str], **changes) -> Profile:
    """A task with one need a factor."""
    factors = {name: FactorNeed((need,) * 5) for name, need in needs.items()}
    settled = {"name": "test", "title": "", "about": "", "version": 1, "calibrated": True, "labels": ("point",)}
    return Profile(**{**settled, "factors": factors, "thresholds": Thresholds(), "sha256": "", **changes})


HEALTHY = ProbeHealth(50.0, 60.0, 0.5, 0.001, 0.1, -3.0, 1.0, (0.1,), 1.0, 1.0, ())


def figure(low, high, clusters=60):
    return Figure((low + high) / 2, low, high, n=500, clusters=clusters)
