"""Weighted k nearest neighbours on frozen features (InstDisc, arXiv:1805.01978; DINO, arXiv:2104.14294)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray

K, TEMPERATURE = 20, 0.07
CHUNK = 1024  # test rows per step, so that the similarity matrix is never larger than CHUNK x n


@torch.no_grad()
def weighted_knn(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> Float[ndarray, "m c"]:
    """Return the share of each class in the weighted votes of the k nearest training rows, in float32.

    Args:
        train: Features in any scale; they are normalised here.
        labels: Class of each training row, numbered from 0; the result has one column for each class.
        test: Features to score.
        k: Number of neighbours; all of `train` if it has fewer rows.
        temperature: Number by which cosines are divided before the exponential.
    """
    bank = F.normalize(torch.from_numpy(train).float(), dim=1)
    queries = F.normalize(torch.from_numpy(test).float(), dim=1)
    classes = F.one_hot(torch.from_numpy(labels).long()).float()
    scores = []
    for start in range(0, len(queries), CHUNK):
        cosine, neighbour = (queries[start : start + CHUNK] @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = (cosine / temperature).softmax(dim=1)  # exp(cosine / T), scaled to sum 1
        scores.append((weight[:, :, None] * classes[neighbour]).sum(dim=1))
    result: Float[ndarray, "m c"] = torch.cat(scores).numpy()
    return result
