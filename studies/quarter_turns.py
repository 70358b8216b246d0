"""Read the quarter turn of a photograph off its features; every photograph is used in all four turns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import draw
from robossl.measure.subjects import Subject
from robossl.probes.decoding import FramePairs, decode
from robossl.probes.frames import ProbeFrames
from robossl.probes.split import split_frames

N_REFERENCE, N_JUDGED = 2400, 1500
_BATCH = 100


def quarter_turn_accuracy(subject: Subject, photographs: ProbeFrames) -> dict[str, float]:
    """Return the accuracy of a linear and of an MLP head in %, by head; chance is 25."""
    split = split_frames(photographs, n_reference=N_REFERENCE, n_evaluation=N_JUDGED)
    reference, judged = (_embed_turned(subject, photographs, at) for at in (split.reference, split.evaluation))
    draws = draw(np.tile(np.arange(len(judged[0])), 4), num_resamples=200)
    found = decode(_with_turn(reference), _with_turn(judged), draws, factor="rot90", level=1, num_classes=4)
    return {each.probe: 100 * each.accuracy for each in found if each.protocol == "abs" and each.accuracy is not None}


def _embed_turned(subject: Subject, photographs: ProbeFrames, at: Int[ndarray, " n"]) -> Float[ndarray, "4 n d"]:
    rows = []
    for start in range(0, len(at), _BATCH):
        frames = photographs.clean(at[start : start + _BATCH])
        turns = [np.ascontiguousarray(np.rot90(frames, turn, (1, 2))) for turn in range(4)]
        rows.append(np.stack([subject(each)["pooled"] for each in turns]))
    return np.concatenate(rows, axis=1)


def _with_turn(features: Float[ndarray, "4 n d"]) -> FramePairs:
    turns = np.repeat(np.arange(4.0), features.shape[1])[:, None]
    return FramePairs(np.concatenate([features[0]] * 4), np.concatenate(features), turns)
