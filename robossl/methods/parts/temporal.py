"""Functions that temporal methods share: encode clips, pool candidate frames, contrast pairs of frames.

Frames outside their episode do not count, so ranks can hold different numbers of pairs. Every mean is therefore taken
over the pairs of the global batch (`global_means`). Losses are in float32 or float64, also under autocast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.common import ranks
from robossl.errors import InputError
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, without_autocast
from robossl.views import ClipSpec, ViewSpec

Negatives = Literal["other", "same", "both"]
"""Frames that serve as negatives: those of other clips, those of the same clip, or both."""

Similarity = Literal["dot", "cosine", "l2"]
"""Similarity of two vectors: dot product, cosine, or minus the Euclidean distance."""


class FramePool(NamedTuple):
    """All frames of the global batch, in rank order. Positives and negatives are chosen from this pool."""

    z: Float[Tensor, "n d"]  # embedding of each frame
    clip: Int[Tensor, " n"]  # number of each frame's clip
    moment: Float[Tensor, " n"]  # time of each frame, or row of each patch; equal values in a clip: same frame
    valid: Bool[Tensor, " n"]
    own: Int[Tensor, "b t"]  # indices of this rank's frames in the pool


class PairSums(NamedTuple):
    """Sums over this rank's pairs of an anchor and a positive.

    For the fields `own_...`, only negatives from the anchor's clip count. Pairs without such a negative are left out.
    """

    loss: Float[Tensor, ""]
    pairs: Float[Tensor, ""]
    hits: Float[Tensor, ""]
    chance: Float[Tensor, ""]  # expected number of hits if the candidates are ranked at random
    own_pairs: Float[Tensor, ""]
    own_hits: Float[Tensor, ""]  # hits among frames of one clip; they share a background, so it gives no clue
    own_chance: Float[Tensor, ""]


class ResidualMLP(nn.Module):
    """x + MLP(x) without batch-norm: the predictor of ATC (arXiv:2009.08319)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.mlp = mlp([dim, hidden_dim, dim], norm="none")

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
        """Return x + MLP(x)."""
        out: Tensor = x + self.mlp(x)
        return out


def clip_view(view: ViewSpec, clip: ClipSpec) -> ViewSpec:
    """Return the specification of a view (augmented frames) with the clip that the method chose.

    Raises:
        InputError: the view's specification already sets a clip.
    """
    if view.clip != ClipSpec():
        raise InputError(
            "method.view.clip is set, but this method chooses its clips; leave it out and set the method's own "
            "lengths in frames and seconds"
        )
    return replace(view, clip=clip)


def encode_clip(encoder: nn.Module, projector: nn.Module, pixels: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t d"]:
    """Encode and project every frame in one batch, so that batch-norm takes its statistics over all frames."""
    z = full_precision(projector(encoder(pixels.flatten(0, 1)).pooled))
    return z.reshape(*pixels.shape[:2], -1)


def pool_frames(z: Float[Tensor, "b t d"], moment: Float[Tensor, "b t"], valid: Bool[Tensor, "b t"]) -> FramePool:
    """Gather the embedded frames of all ranks in a pool, with gradients."""
    b, t = valid.shape
    places = torch.arange(b * t * ranks.world_size(), device=z.device)
    return FramePool(
        z=ranks.gather(z.flatten(0, 1)),
        clip=places // t,
        moment=ranks.gather(moment.flatten()),
        valid=ranks.gather(valid.flatten().to(torch.uint8)).bool(),
        own=places.view(-1, b, t)[ranks.rank()],
    )


def similarity(
    a: Float[Tensor, "p d"], b: Float[Tensor, "n d"], kind: Similarity, temperature: float = 1.0
) -> Float[Tensor, "p n"]:
    """Return the similarity of every row of `a` to every row of `b`, divided by the temperature."""
    with without_autocast(a):
        a, b = full_precision(a), full_precision(b)
        match kind:
            case "dot":
                return a @ b.T / temperature
            case "cosine":
                return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
            case "l2":
                # A matrix product would lose small distances to rounding.
                return -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / temperature


def rowwise_similarity(
    a: Float[Tensor, "*lead d"], b: Float[Tensor, "*lead d"], kind: Literal["l2", "cosine"] = "l2"
) -> Float[Tensor, " *lead"]:
    """Return the similarity of each row of `a` to the same row of `b`."""
    a, b = full_precision(a), full_precision(b)
    score: Tensor = -torch.linalg.vector_norm(a - b, dim=-1) if kind == "l2" else F.cosine_similarity(a, b, dim=-1)
    return score


def contrast(
    logits: Float[Tensor, "p n"],
    pool: FramePool,
    *,
    anchor: Int[Tensor, " p"],
    positive: Int[Tensor, " p"],
    negatives: Negatives,
) -> PairSums:
    """Sum the InfoNCE loss, -log softmax(logits)[positive], over frame pairs (arXiv:1807.03748, equation 4).

    Only valid frames are negatives. A clip can contain the anchor or the positive a second time; this copy is not a
    negative. A copy in a different clip of the same episode is a negative, however. To prevent this, draw one clip from
    each episode (`data.epoch_over: episodes`). A pair counts if its anchor and positive are valid and it has a
    negative. A hit is a positive that scores above all negatives; a tie is not a hit.

    Args:
        logits: similarity of each anchor to every frame of the pool.
        pool: the frames of the global batch.
        anchor: index of each pair's anchor in the pool.
        positive: index of each pair's positive in the pool.
        negatives: which frames are negatives: those of other clips, those of the same clip, or both.
    """
    same_clip = pool.clip[anchor, None] == pool.clip
    taken = (pool.moment[anchor, None] == pool.moment) | (pool.moment[positive, None] == pool.moment)
    others = pool.valid & ~(same_clip & taken)
    chosen = {"other": others & ~same_clip, "same": others & same_clip, "both": others}[negatives]
    is_pair = pool.valid[anchor] & pool.valid[positive] & chosen.any(1)
    candidate = chosen.scatter(1, positive[:, None], True)
    losses = F.cross_entropy(logits.masked_fill(~candidate, -torch.inf), positive, reduction="none")
    own = others & same_clip
    return PairSums(
        (losses * is_pair).sum(),
        is_pair.to(losses.dtype).sum(),
        *_hits_and_chance(logits, chosen, positive, is_pair),
        (is_pair & own.any(1)).to(losses.dtype).sum(),
        *_hits_and_chance(logits, own, positive, is_pair & own.any(1)),
    )


@torch.no_grad()
def _hits_and_chance(logits: Tensor, negative: Tensor, positive: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of hits, and the expected number of hits if the candidates are ranked at random."""
    best = logits.masked_fill(~negative, -torch.inf).amax(1)
    hits = logits.gather(1, positive[:, None]).squeeze(1) > best
    chance = 1 / (1 + negative.sum(1, dtype=logits.dtype))
    return (hits & counted).to(logits.dtype).sum(), (chance * counted).sum()


def mean_over_pairs(
    summed: Collection[PairSums], shown: Mapping[str, PairSums], *, same_clip: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean loss over all pairs, and the accuracy and chance level of each group of pairs in `shown`.

    With `same_clip`, also return accuracy and chance level among frames of the same clip.
    """
    losses, pairs = (torch.stack([each[i] for each in summed]).sum() for i in (0, 1))
    sums = {"loss": (losses, pairs)}
    for name, each in shown.items():
        sums[f"accuracy_{name}"] = (each.hits, each.pairs)
        sums[f"chance_{name}"] = (each.chance, each.pairs)
        if same_clip:
            sums[f"same_clip_accuracy_{name}"] = (each.own_hits, each.own_pairs)
            sums[f"same_clip_chance_{name}"] = (each.own_chance, each.own_pairs)
    means = global_means(sums)
    return means.pop("loss"), means


def global_means(sums: Mapping[str, tuple[Float[Tensor, ""], Float[Tensor, ""]]]) -> dict[str, Tensor]:
    """Return this rank's share of each global mean: its sum * number of ranks / (count summed over all ranks).

    `sums` holds a pair (this rank's sum, this rank's count) for each mean.

    The mean of the ranks' shares is the global mean. Sums keep their gradients. A global count of 0 gives 0.
    """
    counts = torch.stack([count.detach() for _, count in sums.values()])
    factors = ranks.world_size() / ranks.all_reduce_sum(counts).clamp_min(1)
    return {name: total * factor for (name, (total, _)), factor in zip(sums.items(), factors, strict=True)}


def mean_where(values: Float[Tensor, " b"], where: Bool[Tensor, " b"]) -> tuple[Tensor, Tensor]:
    """Return the sum and the count of the selected values, from which `global_means` computes their mean."""
    return (values * where).sum(), where.to(values.dtype).sum()


@torch.no_grad()
def count_true(where: Bool[Tensor, "*lead"]) -> Float[Tensor, ""]:
    """Count the true values on all ranks. The count is the `Loss.weight` of a loss that is a mean over these values."""
    return ranks.all_reduce_sum(where.sum(dtype=torch.float32))


@torch.no_grad()
def count_pairs(summed: Collection[PairSums]) -> Float[Tensor, ""]:
    """Count the pairs on all ranks. The count is the `Loss.weight` of a loss that `mean_over_pairs` returned."""
    return ranks.all_reduce_sum(torch.stack([each.pairs for each in summed]).sum())


def length_penalty(z: Float[Tensor, "b t d"], *, l1: float, l2: float) -> Float[Tensor, " b"]:
    """Return the weighted sum of the l1 and l2 norms of embeddings, averaged over the frames of each clip."""
    lengths: Tensor = l1 * torch.linalg.vector_norm(z, 1, dim=-1) + l2 * torch.linalg.vector_norm(z, 2, dim=-1)
    return lengths.mean(1)


def log_mean_exp(x: Float[Tensor, "*lead"], where: Bool[Tensor, "*lead"]) -> Float[Tensor, ""]:
    """Return log(mean(exp(x))) over the selected values of all ranks, without overflow.

    Every rank gets this global value, not a share of it. If no value is selected, return 0. This happens, for example,
    if the batch has a single clip, so that there is no second clip to compare with.
    """
    everyone, counted = ranks.gather(x.flatten()), ranks.gather(where.flatten().to(torch.uint8)).bool()
    # Mask with the smallest finite number, because -inf would give nan gradients if nothing is selected.
    least = torch.finfo(x.dtype).min
    mean = everyone.masked_fill(~counted, least).logsumexp(0) - counted.sum().clamp_min(1).to(x.dtype).log()
    return torch.where(counted.any(), mean, torch.zeros_like(mean))


def cyclic_shifts(num: int, *, count: int, step: int) -> Int[Tensor, " m"]:
    """Draw at most `count` distinct shifts from 1 to `num` - 1. The seed is the step, so all ranks draw the same."""
    draw = torch.Generator().manual_seed(step)
    return torch.randperm(num - 1, generator=draw)[:count] + 1


def draw_other_clips(
    z: Float[Tensor, "b t d"], valid: Bool[Tensor, " b"], *, count: int, step: int
) -> tuple[Float[Tensor, "b m t d"], Bool[Tensor, "b m"]]:
    """Return `m` other clips of the global batch for each clip (see `cyclic_shifts`), and whether these are valid."""
    everyone, counted = ranks.gather(z), ranks.gather(valid.to(torch.uint8)).bool()
    own = torch.arange(len(z), device=z.device) + ranks.rank() * len(z)
    shifts = cyclic_shifts(len(everyone), count=count, step=step).to(z.device, non_blocking=True)
    at = (own[:, None] + shifts) % len(everyone)
    return everyone[at], counted[at]
