"""Parity: compare the outputs of an exported encoder with those in torch; refuse an export that differs too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from robossl_client.card import ACTION, Agreement, EncoderCard, Parity

from robossl.errors import RobosslError

FeatureFn = Callable[[ndarray], dict[str, ndarray]]  # takes frames, returns features by output name

BATCHES = (1, 3, 5)


class ParityError(RobosslError):
    """The outputs of an ONNX graph differ from the reference: torch at export, the unoptimised graph in a server."""


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits that an export must meet on every output and every frame."""

    # Minimum cosine of each frame's output with torch's output, after the means over frames are subtracted.
    # Without this subtraction, the cosine hides differences: for an int8 export it was 0.999 without and 0.69 with
    # the subtraction.
    min_centred_cosine: float
    max_relative_difference: float  # largest difference, divided by the largest magnitude of the output
    # Largest difference of keypoints, divided by their largest magnitude. The unit of keypoints is half a frame side.
    # If the largest magnitude is 1, a difference of 0.001 is a ninth of a pixel in a frame of 224 px.
    # Actions have the same limit.
    max_keypoint_difference: float


# Keypoints have their own limit, because their softmax over positions amplifies the rounding errors of the feature map.
# With a ResNet-50, the relative difference from torch is up to 1.6e-4 for keypoints, but only 2e-6 for the feature map.
# Actions share this limit, because a policy amplifies rounding errors too: it divides features by their deviation.
GATES = {"fp32": Gates(0.99999, 1e-4, 1e-3), "fp16": Gates(0.999, 5e-2, 5e-2)}


def check_parity(
    reference: FeatureFn,
    candidate: FeatureFn,
    cases: Sequence[UInt8[ndarray, "b h w 3"]],
    *,
    gates: Gates,
    provider: str,
) -> Parity:
    """Run the torch encoder (reference) and the export (candidate) on the same frames and compare each output.

    Raises:
        ParityError: an output does not meet a limit, or is the same for all frames.
    """
    torch_out, onnx_out = [reference(case) for case in cases], [candidate(case) for case in cases]
    agreements, misses = {}, []
    for name in onnx_out[0]:
        wanted, got = (_rows([each[name] for each in out]) for out in (torch_out, onnx_out))
        with np.errstate(all="ignore"):  # an overflow gives nan, which fails every comparison below
            agreement, relative = _agreement(wanted, got), float(np.divide(_largest(got - wanted), _largest(wanted)))
        agreements[name] = agreement
        most = gates.max_keypoint_difference if name in ("keypoints", ACTION) else gates.max_relative_difference
        if _largest(wanted - wanted.mean(0)) <= 1e-5 * _largest(wanted):
            misses.append(f"{name} is the same for every frame (a collapsed encoder)")
        elif not (agreement.centred_cosine >= gates.min_centred_cosine and relative <= most):
            misses.append(f"{name} has centred cosine {agreement.centred_cosine:.6f}, difference {relative:.1e}")
    if misses:
        raise ParityError(
            f"the exported graph is refused and nothing was written: {'; '.join(misses)}; wanted is a centred cosine "
            f"of at least {gates.min_centred_cosine} and a difference of at most {gates.max_relative_difference:g} "
            f"of the largest magnitude ({gates.max_keypoint_difference:g} for keypoints and actions); try precision "
            "fp32, or look at the encoder's health in its run's metrics"
        )
    return Parity(
        provider=provider,
        batches=tuple(sorted({len(case) for case in cases})),
        frame_hw=tuple(dict.fromkeys((case.shape[1], case.shape[2]) for case in cases)),
        outputs=agreements,
        min_centred_cosine=gates.min_centred_cosine,
        max_relative_difference=gates.max_relative_difference,
    )


def frame_sizes(input_hw: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the sizes of the frames for the comparison: square, 16:9, odd sides, smaller than the encoder's input."""
    return ((240, 240), (180, 320), (97, 131), (input_hw[0] // 2 + 1, input_hw[1] // 2 + 1))


def natural_frames(num_frames: int, hw: tuple[int, int], *, seed: int) -> UInt8[ndarray, "b h w 3"]:
    """Make random frames with the statistics of real scenes: 1/f texture, correlated colours, objects with edges."""
    rng = np.random.default_rng(seed)
    return np.stack([_natural_frame(hw, rng) for _ in range(num_frames)])


def sample_states(card: EncoderCard, num_frames: int) -> tuple[Float32[ndarray, "b v"], ...]:
    """Return one random state for each frame, with mean and deviation of the demonstrations; () if none is taken."""
    policy = card.policy
    if policy is None or policy.state is None:
        return ()
    noise = np.random.default_rng(num_frames).standard_normal((num_frames, len(policy.state_mean)))
    return ((np.array(policy.state_mean) + np.array(policy.state_std) * noise).astype(np.float32),)


def _natural_frame(hw: tuple[int, int], rng: np.random.Generator) -> UInt8[ndarray, "h w 3"]:
    frequency = np.hypot(np.fft.fftfreq(hw[0])[:, None], np.fft.fftfreq(hw[1])[None])
    # Natural images have this spectrum: https://doi.org/10.1364/JOSAA.4.002379
    amplitude = 1 / np.maximum(frequency, 1 / max(hw))
    noise = np.fft.fft2(rng.standard_normal((4, *hw)))
    texture = np.fft.ifft2(noise * amplitude).real
    texture /= texture.std((1, 2), keepdims=True) + 1e-9
    image = rng.uniform(60, 190, 3) + 25 * texture[:1].transpose(1, 2, 0) + 12 * texture[1:].transpose(1, 2, 0)
    for _ in range(6):
        (y0, y1), (x0, x1) = (np.sort(rng.integers(0, size + 1, 2)) for size in hw)
        image[y0:y1, x0:x1] = 0.4 * image[y0:y1, x0:x1] + 0.6 * rng.uniform(0, 255, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def _rows(batches: Sequence[ndarray]) -> Float[ndarray, "n d"]:
    return np.concatenate([batch.reshape(len(batch), -1) for batch in batches]).astype(np.float64)


def _agreement(wanted: Float[ndarray, "n d"], got: Float[ndarray, "n d"]) -> Agreement:
    a, b = wanted - wanted.mean(0), got - got.mean(0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return Agreement(
        max_abs_difference=_largest(got - wanted),
        centred_cosine=float(((a * b).sum(1) / np.maximum(norms, np.finfo(float).tiny)).min()),
    )


def _largest(values: ndarray) -> float:
    return float(np.abs(values).max())
