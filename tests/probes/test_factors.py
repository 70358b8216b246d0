"""Factors: identity limits, exactness, strength that grows, draws, warps that move labels as they move pixels.

Parametrised over FACTORS: a new factor needs no test here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from probe_pictures import Pictures
from scipy.ndimage import convolve, fourier_gaussian

from robossl.data.store import open_store
from robossl.errors import InputError
from robossl.probes.factors import FACTORS, resolve_factor
from robossl.probes.factors.blur import discrete_gaussian
from robossl.probes.factors.factor import Factor
from robossl.probes.factors.warping import OUTSIDE, make_disc
from robossl.probes.frames import ProbeFrames
from robossl.probes.sources.store import StoreProbeFrames
from robossl.probes.views import render_clean, render_frames

IN_THE_PICTURE = [  # made from the pixels of one frame; the others are rendered, or need frames before it
    name for name, place in FACTORS.items() if ".scene:" not in place and resolve_factor(name).family != "temporal"
]
BY_STRENGTH = [name for name in IN_THE_PICTURE if not resolve_factor(name).classes]
GEOMETRIC = [name for name in IN_THE_PICTURE if resolve_factor(name).warp]


@pytest.fixture(scope="module")
def frames(clip_store_path: Path) -> ProbeFrames:
    return StoreProbeFrames(open_store(clip_store_path))


@pytest.fixture(scope="module")
def at(frames: ProbeFrames) -> np.ndarray:
    """One frame of each of eight clips."""
    return np.unique(frames.clusters, return_index=True)[1][:8]


def level(factor: Factor, frames: ProbeFrames, at: np.ndarray, number: int) -> np.ndarray:
    return render_frames(factor, frames, at, factor.draw(number, at, seed=0, draw="level"))


@pytest.mark.parametrize("name", FACTORS)
def test_each_is_found_by_its_name_and_has_five_levels_or_kinds(name: str) -> None:
    factor = resolve_factor(name)
    assert factor.name == name
    assert {len(side) for side in factor.sides} == {len(factor.classes) - 1 if factor.classes else 5}
    for side in factor.sides:  # mild to severe
        steps = np.diff([factor.clean, *side])
        assert (steps > 0).all() or (steps < 0).all()


def test_an_unknown_factor_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="unknown factor 'rotatoin'; did you mean 'rotation'"):
        resolve_factor("rotatoin")


@pytest.mark.parametrize("name", BY_STRENGTH)
def test_a_strength_near_clean_changes_next_to_nothing(name: str, frames: ProbeFrames, at: np.ndarray) -> None:
    factor = resolve_factor(name)
    clean = render_clean(frames, at, factor.base)
    values = factor.draw(1, at, seed=0, draw="level")
    first = factor.strengths(1)[-1]
    values[:, 0] = 100 if name == "jpeg" else factor.clean + (first - factor.clean) / 1000
    off = np.abs(render_frames(factor, frames, at, values).astype(float) - clean)
    assert off.mean() < 1.5
    values[:, 0] = factor.clean
    assert (render_frames(factor, frames, at, values) == clean).all()


@pytest.mark.parametrize("name", BY_STRENGTH)
def test_pixels_move_farther_from_level_to_level(name: str, frames: ProbeFrames, at: np.ndarray) -> None:
    factor = resolve_factor(name)
    clean = render_clean(frames, at, factor.base).astype(float)
    errors = [np.square(level(factor, frames, at, number) - clean).mean() for number in range(1, 6)]
    assert (np.diff([0, *errors]) > 0).all()


def test_latency_shows_what_was_seen_before(frames: ProbeFrames, at: np.ndarray) -> None:
    factor = resolve_factor("latency")
    clean = frames.clean(at).astype(float)
    errors = [np.square(level(factor, frames, at, number) - clean).mean() for number in range(1, 6)]
    assert errors[0] > 0 and errors[4] > errors[0]


@pytest.mark.parametrize("name", IN_THE_PICTURE)
def test_a_view_depends_on_its_own_frame_alone(name: str, frames: ProbeFrames, at: np.ndarray) -> None:
    factor = resolve_factor(name)
    last = factor.num_levels
    together = level(factor, frames, at, last)
    alone = np.concatenate([level(factor, frames, at[[k]], last) for k in range(len(at))])
    assert (together == alone).all()
    assert (level(factor, frames, at[::-1], last) == together[::-1]).all()


def test_turns_and_flips_are_exact(frames: ProbeFrames, at: np.ndarray) -> None:
    turn, flip = resolve_factor("rot90"), resolve_factor("hflip")
    clean = render_clean(frames, at, "square")
    for number in (1, 2, 3):
        assert (level(turn, frames, at, number) == np.rot90(clean, number, axes=(1, 2))).all()
    assert (level(flip, frames, at, 1) == render_clean(frames, at, "disc")[:, :, ::-1]).all()


@pytest.mark.parametrize("name", GEOMETRIC)
def test_one_disc_in_every_view_the_clean_one_too(name: str, frames: ProbeFrames, at: np.ndarray) -> None:
    factor = resolve_factor(name)
    views = [
        render_clean(frames, at, factor.base),
        *(level(factor, frames, at, n + 1) for n in range(factor.num_levels)),
    ]
    outside = ~make_disc((views[0].shape[1], views[0].shape[2]))
    assert outside.mean() > 0.2
    for view in views:
        assert (view[:, outside] == OUTSIDE).all()
        assert (view[:, ~outside] != OUTSIDE).any(-1).mean() > 0.9


@pytest.mark.parametrize("name", [name for name in GEOMETRIC if name not in ("rot90", "hflip")])
def test_no_border_comes_into_view(name: str) -> None:
    factor = resolve_factor(name)
    plain = Pictures(np.full((3, 40, 56, 3), 201, np.uint8))
    at = np.arange(3)
    assert (level(factor, plain, at, 5) == render_clean(plain, at, factor.base)).all()


@pytest.mark.parametrize("name", ["rotation", "translation", "scale", "perspective"])
def test_a_mild_move_is_about_as_sharp_as_the_clean_view(name: str, frames: ProbeFrames, at: np.ndarray) -> None:
    factor = resolve_factor(name)

    def sharpness(view: np.ndarray) -> float:
        inner = view[:, 30:-30, 50:-50].astype(float)
        return float(np.square(np.diff(inner, axis=1)).mean() + np.square(np.diff(inner, axis=2)).mean())

    assert sharpness(level(factor, frames, at, 1)) / sharpness(render_clean(frames, at, factor.base)) > 0.85


def centre(profile: np.ndarray) -> float:
    return float((profile * (np.arange(len(profile)) + 0.5)).sum() / profile.sum())


@pytest.mark.parametrize("hw", [(64, 96), (96, 64), (65, 96), (64, 64)])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_labels_move_as_pixels_do(name: str, hw: tuple[int, int]) -> None:
    factor = resolve_factor(name)
    height, width = hw
    x, y = (np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1
    middle = np.array([[0.2, -0.1], [-0.15, 0.25], [0.1, 0.3], [0.0, -0.3]]) * [min(hw) / width, min(hw) / height]
    away = [((x - mx) * width) ** 2 + ((y[:, None] - my) * height) ** 2 for mx, my in middle]
    spots = np.exp(-np.stack(away) / 60)
    spotted = Pictures(np.repeat((250 * spots[..., None]).astype(np.uint8), 3, -1))
    assert factor.warp is not None
    for number in range(1, min(4, factor.num_levels + 1)):
        at = np.arange(len(middle))
        values = factor.draw(number, at, seed=1, draw="level")
        view = factor.apply(spotted, at, values)[..., 0].astype(float)
        found_x, found_y = (np.array([centre(picture.sum(axis)) for picture in view]) for axis in (0, 1))
        points = np.concatenate([middle, np.ones((len(at), 1))], 1)[..., None]
        wanted = (factor.warp(values, hw) @ points)[..., 0]
        wanted = wanted[:, :2] / wanted[:, 2:]
        seen = (np.abs(wanted) < 0.6).all(1)
        assert seen.any()
        assert np.abs((wanted[:, 0] + 1) / 2 * view.shape[2] - found_x)[seen].max() < 0.5
        assert np.abs((wanted[:, 1] + 1) / 2 * view.shape[1] - found_y)[seen].max() < 0.5


@pytest.mark.parametrize("name", FACTORS)
def test_draws(name: str) -> None:
    factor = resolve_factor(name)
    at = np.arange(400)
    for number in range(1, factor.num_levels + 1):
        values = factor.draw(number, at, seed=3, draw="level")
        strengths = factor.strengths(number)
        assert set(values[:, 0]) == set(strengths)
        assert len(strengths) == 1 or 0.4 < (values[:, 0] == strengths[0]).mean() < 0.6
        spread = factor.draw(number, at, seed=3, draw="decode")
        read = factor.targets(spread)
        if factor.num_classes:
            kinds, counts = np.unique(read, return_counts=True)
            assert kinds.tolist() == list(range(factor.num_classes))
            assert counts.min() > 0.7 * len(at) / factor.num_classes
        else:
            low, high = sorted(strengths)
            assert (spread[:, 0] >= low).all() and (spread[:, 0] <= high).all()
            assert read.min() < 0 < read.max() and len(np.unique(read)) > 350
    assert (factor.targets(factor.clean_values(2)) == 0).all()


def test_what_is_read_back_of_a_shift_is_where_it_went() -> None:
    factor = resolve_factor("translation")
    assert factor.warp is not None
    values = factor.draw(5, np.arange(50), seed=0, draw="decode")
    moved = factor.warp(values, (80, 120))[:, :2, 2] * [120 / 2 / 80, 1 / 2]
    assert np.allclose(factor.targets(values), moved)


def test_a_blur_has_the_width_that_is_asked_for_below_a_pixel_too() -> None:
    for deviation in (0.1, 0.4, 1.0, 3.0):
        taps = discrete_gaussian(deviation)
        place = np.arange(len(taps)) - len(taps) // 2
        assert np.isclose((taps * place**2).sum(), deviation**2, rtol=0.01) and np.isclose(taps.sum(), 1)


def one_sided_gaussian(radius: int, sigma: float) -> np.ndarray:
    kernel = np.exp(-(np.arange(2 * radius + 1.0) ** 2) / (2 * sigma**2))
    padded = np.zeros(4 * radius + 1)
    padded[2 * radius :] = kernel / kernel.sum()
    return padded


def severity_1(name: str, frame: np.ndarray, turn: float) -> np.ndarray:
    """ImageNet-C's, with lengths in shares of its 224 pixels; only those whose definition is ours too."""
    x, side = frame / 255.0, min(frame.shape[:2]) / 224
    match name:
        case "noise":
            y = x + np.random.default_rng(0).normal(size=x.shape, scale=0.08)
        case "blur":
            waves = np.fft.fft2(x, axes=(0, 1))
            y = np.fft.ifft2(fourier_gaussian(waves, (1 * side, 1 * side, 0)), axes=(0, 1)).real
        case "contrast":
            y = (x - x.mean((0, 1))) * 0.4 + x.mean((0, 1))
        case "jpeg":
            packed = simplejpeg.encode_jpeg(np.ascontiguousarray(frame), 25, "RGB", "420")
            return simplejpeg.decode_jpeg(packed)
        case "motion_blur":
            kernel = one_sided_gaussian(10, 3 * side)
            y = convolve(x, kernel[None, :, None] if turn < 0.5 else kernel[:, None, None], mode="nearest")
    return np.asarray((np.clip(y, 0, 1) * 255).round().astype(np.uint8))


@pytest.mark.parametrize("name", ["noise", "blur", "contrast", "jpeg", "motion_blur"])
def test_level_3_is_milder_than_severity_1_of_imagenet_c(name: str, frames: ProbeFrames, at: np.ndarray) -> None:
    factor = resolve_factor(name)
    clean = frames.clean(at)
    theirs = np.stack([severity_1(name, frame, k / len(clean)) for k, frame in enumerate(clean)])
    ours = level(factor, frames, at, 3)
    assert np.square(ours - clean.astype(float)).mean() < np.square(theirs - clean.astype(float)).mean()
