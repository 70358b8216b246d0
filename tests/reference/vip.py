"""VIP by the letter: algorithm 1 of arXiv:2210.00030 with plain exponentials, one clip at a time."""

from __future__ import annotations

import math

from robossl.methods.parts.temporal import cyclic_shifts

SETTINGS = {"output_dim": 8, "step_seconds": 0.2}
# The question changes crops and colours, so frames are treated apart: what a whole clip shares is no invariance.
LEARN_SETTINGS = {
    "output_dim": 64,
    "discount": 0.5,  # one's own goal weighs 1 - discount: at 0.98 the loss hardly asks whose goal it is
    "num_negatives": 3,
    "view": {"scale": [0.3, 1.0], "jitter_p": 0.8, "grayscale_p": 0.2, "per_frame": ["crop", "jitter", "grayscale"]},
}
VARIANTS = {"negatives": {"num_negatives": 3}}


def loss(method, batch) -> float:
    """The whole loss of a batch; batch-norm in training mode sees all frames together."""
    view, config = batch.views[0], method.config
    z = method.projector(method.encoder(view.pixels.flatten(0, 1)).pooled).view(*view.valid.shape, -1).tolist()
    counted = [i for i, row in enumerate(view.valid.tolist()) if all(row)]
    start, powers, penalties = [], [], []
    for i in counted:
        first, now, later, goal = z[i]
        start.append((1 - config.discount) * math.dist(first, goal))
        powers.append(math.exp(-(-1 - config.discount * math.dist(later, goal) + math.dist(now, goal))))
        penalties.append(config.l1_weight * sum(abs(x) for frame in z[i] for x in frame) / 4)
        penalties[-1] += config.l2_weight * sum(math.hypot(*frame) for frame in z[i]) / 4
    total = (sum(start) + sum(penalties)) / len(counted) + math.log(sum(powers) / len(powers))
    if config.num_negatives:
        shifts = cyclic_shifts(len(z), count=config.num_negatives, step=method.step).tolist()
        pairs = [(i, (i + shift) % len(z)) for i in counted for shift in shifts]
        away = [
            math.exp(1 + config.discount * math.dist(z[j][2], z[i][3]) - math.dist(z[j][1], z[i][3]))
            for i, j in pairs
            if j in counted
        ]
        total += math.log(sum(away) / len(away))
    return total
