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
from torch import Tensor

from robossl.evaluate.protocol import Scores

CHUNK = 1024  # test rows at a time: bounds the similarity matrix at CHUNK x n


@torch.no_grad()
def weighted_knn(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "m c"]:
    """Share of the weighted votes of each class among the k nearest training rows; computed in float32.

    Args:
        train: Features in any scale; they are normalised here.
        labels: Classes 0 to `num_classes` - 1.
        test: Features to score, on the device of `train`.
        num_classes: Columns of the result.
        k: Neighbours; all of `train` when it has fewer.
        temperature: Cosine is divided by it before the exponential.
    """
    bank = F.normalize(train.float(), dim=1)
    classes = F.one_hot(labels.long(), num_classes).float()
    scores = []
    for start in range(0, len(test), CHUNK):
        queries = F.normalize(test[start : start + CHUNK].float(), dim=1)
        cosine, neighbour = (queries @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = (cosine / temperature).softmax(dim=1)  # exp(s / T) over its sum
        scores.append((weight[:, :, None] * classes[neighbour]).sum(dim=1))
    return torch.cat(scores)


def knn(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    groups: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    num_classes: int,
    seed: int,
) -> Scores:
    """The protocol: nothing is fitted or chosen, so `groups` and `seed` play no part."""
    scores = weighted_knn(
        torch.from_numpy(train), torch.from_numpy(labels), torch.from_numpy(test), num_classes=num_classes
    )
    return Scores(scores.numpy(), {"k": min(20, len(train)), "temperature": 0.07, "centred": False})
