"""Weighted k nearest neighbours on frozen features, as in InstDisc and DINO (k 20, temperature 0.07).

Features are l2-normalised and not centred; a neighbour of cosine s votes for its class with weight exp(s /
temperature) (Wu et al., arXiv:1805.01978, section 3.4; Caron et al., arXiv:2104.14294, section 4). The
votes of a frame are divided by their sum. Nothing balances the classes: what is frequent in the training
split is frequent among neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluate.protocol import Scores

CHUNK = 1024  # test rows at a time: bounds the similarity matrix at CHUNK x n


@torch.no_grad()
def weighted_knn(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[ndarray, "m c"]:
    """Share of the weighted votes of each class among the k nearest training rows; computed in float32.

    Args:
        train: Features in any scale; they are normalised here.
        labels: Classes from 0; the result has a column for each, up to the largest.
        test: Features to score.
        k: Neighbours; all of `train` when it has fewer.
        temperature: Cosine is divided by it before the exponential.
    """
    bank = F.normalize(torch.from_numpy(train).float(), dim=1)
    queries = F.normalize(torch.from_numpy(test).float(), dim=1)
    classes = F.one_hot(torch.from_numpy(labels).long()).float()
    scores = []
    for start in range(0, len(queries), CHUNK):
        cosine, neighbour = (queries[start : start + CHUNK] @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = (cosine / temperature).softmax(dim=1)  # exp(s / T) over its sum
        scores.append((weight[:, :, None] * classes[neighbour]).sum(dim=1))
    result: Float[ndarray, "m c"] = torch.cat(scores).numpy()
    return result


def knn(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    groups: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    seed: int,
) -> Scores:
    """The protocol: nothing is fitted or chosen, so `groups` and `seed` play no part."""
    details = {"k": min(20, len(train)), "temperature": 0.07, "centred": False}
    return Scores(weighted_knn(train, labels, test), details)
