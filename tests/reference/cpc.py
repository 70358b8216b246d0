"""CPC by the letter: equations 3 and 4 of arXiv:1807.03748, one pair and one candidate at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

SETTINGS = {"num_frames": 4, "stride_seconds": 0.2, "steps": 2, "output_dim": 8, "context_dim": 8, "column_dim": 4}
VARIANTS = {
    "lstm, warm-up": {"context": "lstm", "num_frames": 5, "warmup_frames": 1},
    "transformer, other clips": {"context": "transformer", "context_layers": 2, "negatives": "other"},
    "no context, same clip": {"context": "none", "negatives": "same"},
    "residual, cosine, stop-gradient": {
        "head": "residual",
        "head_hidden_dim": 16,
        "similarity": "cosine",
        "temperature": 0.2,
        "target": "stop_gradient",
    },
    "l2, ema, columns": {"similarity": "l2", "target": "ema", "columns": {"action": 3}, "column_lag": 1},
}

Vector = Sequence[float]
SIMILARITIES: dict[str, Callable[[Vector, Vector], float]] = {
    "dot": lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)),
    "cosine": lambda a, b: SIMILARITIES["dot"](a, b) / math.hypot(*a) / math.hypot(*b),
    "l2": lambda a, b: -math.dist(a, b),
}


def cpc(
    predictions: Sequence[Sequence[Sequence[Vector]]],  # clip, frame, k - 1
    targets: Sequence[Sequence[Vector]],
    times: Sequence[Sequence[float]],
    valid: Sequence[Sequence[bool]],
    *,
    warmup: int = 0,
    negatives: str = "both",
    similarity: str = "dot",
    temperature: float = 1.0,
) -> float:
    """The mean over pairs: a frame and one k frames later, both valid and past the warm-up."""
    clips, frames = range(len(targets)), range(warmup, len(targets[0]))
    total, count = 0.0, 0
    for i in clips:
        for t in frames:
            for k, prediction in enumerate(predictions[i][t], start=1):
                if t + k not in frames or not (valid[i][t] and valid[i][t + k]):
                    continue
                score = math.exp(SIMILARITIES[similarity](prediction, targets[i][t + k]) / temperature)
                rivals = [
                    math.exp(SIMILARITIES[similarity](prediction, targets[j][s]) / temperature)
                    for j in clips
                    for s in frames
                    if valid[j][s]
                    and (j != i or times[j][s] not in (times[i][t], times[i][t + k]))
                    and (negatives == "both" or (j == i) == (negatives == "same"))
                ]
                if rivals:
                    total -= math.log(score / (score + sum(rivals)))
                    count += 1
    return total / count


def loss(method, batch) -> float:
    """A method with targets of this moment; batch-norm in training mode sees all frames together."""
    view, config = batch.views[0], method.config
    b, t = view.valid.shape
    z = method.projector(method.encoder(view.pixels.flatten(0, 1)).pooled).view(b, t, -1)
    c = method.context(method.columns(z, view.columns))
    predictions = method.heads(c).view(b, t, config.steps, -1)
    return cpc(
        predictions.tolist(),
        z.tolist(),
        view.time_seconds.tolist(),
        view.valid.tolist(),
        warmup=config.warmup_frames,
        negatives=config.negatives,
        similarity=config.similarity,
        temperature=config.temperature,
    )
