"""TCN by the letter: the triplet loss of arXiv:1704.06888, plain and with semi-hard negatives, and a softmax form.

One anchor, one positive and one negative at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SETTINGS = {"window_seconds": 0.2, "output_dim": 8}
# The question changes crops and colours, so frames are treated apart: what a whole clip shares is no invariance.
LEARN_SETTINGS = {
    "output_dim": 64,
    "form": "softmax",  # the other form tells frames of a clip apart, and is not asked that
    "view": {"scale": [0.3, 1.0], "jitter_p": 0.8, "grayscale_p": 0.2, "per_frame": ["crop", "jitter", "grayscale"]},
}
VARIANTS = {
    "free length": {"length": 0.0},
    "no mining": {"mining": "none"},
    "mined in its own clip": {"negatives": "same"},
    "mined in other clips, wide margin": {"negatives": "other", "margin": 1.5},
    "softmax": {"form": "softmax", "temperature": 0.5},
    "softmax, own clip": {"form": "softmax", "temperature": 0.5, "negatives": "same"},
}

Clip = Sequence[Sequence[float]]  # anchor, near, far


def triplet(z: Sequence[Clip], has_far: Sequence[bool], *, margin: float, length: float) -> float:
    terms = []
    for clip, counts in zip(z, has_far, strict=True):
        anchor, near, far = ([length * x / math.hypot(*frame) for x in frame] if length else frame for frame in clip)
        if counts:
            terms.append(max(0.0, margin + math.dist(anchor, near) ** 2 - math.dist(anchor, far) ** 2))
    return sum(terms) / len(terms)


def semi_hard_triplet(
    z: Sequence[Clip],
    times: Sequence[Sequence[float]],
    valid: Sequence[Sequence[bool]],
    *,
    window: float,
    margin: float,
    length: float,
    negatives: str,
) -> float:
    """FaceNet's rule (arXiv:1503.03832): the nearest negative beyond the positive; the farthest if there is none."""
    frames = {(i, place): frame for i, clip in enumerate(z) for place, frame in enumerate(clip) if valid[i][place]}
    if length:
        frames = {key: [length * x / math.hypot(*frame) for x in frame] for key, frame in frames.items()}
    terms = []
    for i in range(len(z)):
        for anchor, positive in (((i, 0), (i, 1)), ((i, 1), (i, 0))):
            if anchor not in frames or positive not in frames or times[i][0] == times[i][1]:
                continue
            apart = math.dist(frames[anchor], frames[positive]) ** 2
            away = [
                math.dist(frames[anchor], frame) ** 2
                for (j, place), frame in frames.items()
                if (j != i or abs(times[i][place] - times[i][anchor[1]]) > 1.999 * window)
                and (negatives == "both" or (j == i) == (negatives == "same"))
            ]
            if away:
                beyond = [distance for distance in away if distance > apart]
                terms.append(max(0.0, margin + apart - (min(beyond) if beyond else max(away))))
    return sum(terms) / len(terms)


def softmax(z: Sequence[Clip], has_far: Sequence[bool], *, temperature: float, negatives: str) -> float:
    terms = []
    for i, (anchor, near, _) in enumerate(z):
        rivals = [
            math.exp(_cosine(anchor, frame) / temperature)
            for j, clip in enumerate(z)
            for place, frame in enumerate(clip)
            if ((place == 2 and has_far[j]) or (place == 1 and j != i))
            and (negatives == "both" or (j == i) == (negatives == "same"))
        ]
        if rivals:
            score = math.exp(_cosine(anchor, near) / temperature)
            terms.append(-math.log(score / (score + sum(rivals))))
    return sum(terms) / len(terms)


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def loss(method, batch) -> float:
    """Either form; batch-norm in training mode sees all frames together."""
    view, config = batch.views[0], method.config
    z = method.projector(method.encoder(view.pixels.flatten(0, 1)).pooled).view(*view.valid.shape, -1).tolist()
    has_far = view.valid[:, 2].tolist()
    if config.form == "softmax":
        return softmax(z, has_far, temperature=config.temperature, negatives=config.negatives)
    if config.mining == "none":
        return triplet(z, has_far, margin=config.margin, length=config.length)
    return semi_hard_triplet(
        z,
        view.time_seconds.tolist(),
        view.valid.tolist(),
        window=config.window_seconds,
        margin=config.margin,
        length=config.length,
        negatives=config.negatives,
    )
