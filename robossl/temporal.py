"""What temporal methods share: clips through an encoder, a pool of candidate frames, telling one from the others.

Frames past their episode's end count nowhere, so ranks hold unequal numbers of pairs: all means are over those of the
global batch (`shares`). Losses are in at least float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from robossl import ranks
from robossl.errors import InputError
from robossl.heads import mlp
from robossl.losses import full_precision
from robossl.views import ClipSpec, ViewSpec

Negatives = Literal["other", "same", "both"]
"""Which frames a pair is told from: those of other clips, of its own clip, or all."""

Similarity = Literal["dot", "cosine", "l2"]
"""Of two vectors: their product, that of their directions, or minus their distance."""


class Pool(NamedTuple):
    """The frames of the global batch as candidates, in rank order."""

    z: Float[Tensor, "n d"]
    clip: Int[Tensor, " n"]  # number of its clip
    moment: Float[Tensor, " n"]  # frames of a clip with equal moments are one frame of the store
    valid: Bool[Tensor, " n"]
    own: Int[Tensor, "b t"]  # places of this rank's frames


class Tally(NamedTuple):
    """Sums over pairs of this rank; the last three are over those that have negatives in their own clip."""

    loss: Float[Tensor, ""]
    pairs: Float[Tensor, ""]
    hits: Float[Tensor, ""]
    chance: Float[Tensor, ""]  # of a guess among the candidates
    own_pairs: Float[Tensor, ""]
    own_hits: Float[Tensor, ""]  # told from the frames of its own clip alone, where the background does not help
    own_chance: Float[Tensor, ""]


class Residual(nn.Module):
    """x + MLP(x), the predictor of ATC (arXiv:2009.08319): no batch-norm."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.mlp = mlp([dim, hidden_dim, dim], norm="none")

    def forward(self, x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
        """The sum."""
        out: Tensor = x + self.mlp(x)
        return out


def clip_view(view: ViewSpec, clip: ClipSpec) -> ViewSpec:
    """The view cut from a method's clip.

    Raises:
        InputError: the view has a clip of its own.
    """
    if view.clip != ClipSpec():
        raise InputError(
            "method.view.clip is set, but this method chooses its clips; leave it out and set the method's own "
            "lengths in frames and seconds"
        )
    return replace(view, clip=clip)


def encode_clip(encoder: nn.Module, projector: nn.Module, pixels: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t d"]:
    """Every frame through encoder and projector; batch-norm sees all of them together."""
    z = full_precision(projector(encoder(pixels.flatten(0, 1)).pooled))
    return z.reshape(*pixels.shape[:2], -1)


def pool_frames(z: Float[Tensor, "b t d"], moment: Float[Tensor, "b t"], valid: Bool[Tensor, "b t"]) -> Pool:
    """The frames of all ranks, with gradients."""
    b, t = valid.shape
    places = torch.arange(b * t * ranks.world_size(), device=z.device)
    return Pool(
        z=ranks.gather(z.flatten(0, 1)),
        clip=places // t,
        moment=ranks.gather(moment.flatten()),
        valid=ranks.gather(valid.flatten().to(torch.uint8)).bool(),
        own=places.view(-1, b, t)[ranks.rank()],
    )


def similarity(
    a: Float[Tensor, "p d"], b: Float[Tensor, "n d"], kind: Similarity, temperature: float = 1.0
) -> Float[Tensor, "p n"]:
    """Of every row of `a` to every row of `b`, over the temperature."""
    with torch.autocast(a.device.type, enabled=False):
        a, b = full_precision(a), full_precision(b)
        match kind:
            case "dot":
                return a @ b.T / temperature
            case "cosine":
                return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
            case "l2":  # by differences: products lose the small distances
                return -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / temperature


def contrast(
    logits: Float[Tensor, "p n"],
    pool: Pool,
    *,
    anchor: Int[Tensor, " p"],
    positive: Int[Tensor, " p"],
    negatives: Negatives,
) -> Tally:
    """InfoNCE (arXiv:1807.03748, equation 4) of each pair of places in the pool: -log softmax(logits)[positive].

    Told from are valid frames only, never the anchor's or the positive's own frame again within its clip (another clip
    of the episode may hold it too: draw a clip an episode, `data.epoch_over: episodes`). A pair needs a valid anchor, a
    valid positive and a negative. A hit is a positive that scores above all negatives: a tie is none.
    """
    same_clip = pool.clip[anchor, None] == pool.clip
    taken = (pool.moment[anchor, None] == pool.moment) | (pool.moment[positive, None] == pool.moment)
    others = pool.valid & ~(same_clip & taken)
    chosen = {"other": others & ~same_clip, "same": others & same_clip, "both": others}[negatives]
    is_pair = pool.valid[anchor] & pool.valid[positive] & chosen.any(1)
    candidate = chosen.scatter(1, positive[:, None], True)
    losses = F.cross_entropy(logits.masked_fill(~candidate, -torch.inf), positive, reduction="none")
    own = others & same_clip
    return Tally(
        (losses * is_pair).sum(),
        is_pair.to(losses.dtype).sum(),
        *_guesses(logits, chosen, positive, is_pair),
        (is_pair & own.any(1)).to(losses.dtype).sum(),
        *_guesses(logits, own, positive, is_pair & own.any(1)),
    )


@torch.no_grad()
def _guesses(logits: Tensor, negative: Tensor, positive: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Hits, and those expected of a blind guess."""
    best = logits.masked_fill(~negative, -torch.inf).amax(1)
    hits = logits.gather(1, positive[:, None]).squeeze(1) > best
    chance = 1 / (1 + negative.sum(1, dtype=logits.dtype))
    return (hits & counted).to(logits.dtype).sum(), (chance * counted).sum()


def mean_tally(
    tallies: Collection[Tally], shown: Mapping[str, Tally], *, same_clip: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, every pair weighted alike, and the accuracies to show, each with its chance level beside it."""
    losses, pairs = (torch.stack([tally[i] for tally in tallies]).sum() for i in (0, 1))
    sums = {"loss": (losses, pairs)}
    for name, tally in shown.items():
        sums[f"accuracy_{name}"] = (tally.hits, tally.pairs)
        sums[f"chance_{name}"] = (tally.chance, tally.pairs)
        if same_clip:
            sums[f"same_clip_accuracy_{name}"] = (tally.own_hits, tally.own_pairs)
            sums[f"same_clip_chance_{name}"] = (tally.own_chance, tally.own_pairs)
    means = shares(sums)
    return means.pop("loss"), means


def shares(sums: Mapping[str, tuple[Float[Tensor, ""], Float[Tensor, ""]]]) -> dict[str, Tensor]:
    """Of each (sum, count) this rank's share: the mean over ranks is all ranks' sum over all ranks' count.

    The gradients of a sum are kept. A count of nothing gives 0.
    """
    counts = torch.stack([count.detach() for _, count in sums.values()])
    factors = ranks.world_size() / ranks.all_reduce_sum(counts).clamp_min(1)
    return {name: total * factor for (name, (total, _)), factor in zip(sums.items(), factors, strict=True)}


def mean_where(values: Float[Tensor, " b"], where: Bool[Tensor, " b"]) -> tuple[Tensor, Tensor]:
    """Sum and count, for `shares`, of the values that count."""
    return (values * where).sum(), where.to(values.dtype).sum()


@torch.no_grad()
def num_counted(where: Bool[Tensor, "*lead"]) -> Float[Tensor, ""]:
    """How many count on all ranks: the weight of a micro-batch whose loss is their mean."""
    return ranks.all_reduce_sum(where.sum(dtype=torch.float32))


@torch.no_grad()
def num_pairs(tallies: Collection[Tally]) -> Float[Tensor, ""]:
    """How many pairs there are on all ranks: the weight of a micro-batch whose loss is `mean_tally`'s."""
    return ranks.all_reduce_sum(torch.stack([tally.pairs for tally in tallies]).sum())


def likeness(
    a: Float[Tensor, "*lead d"], b: Float[Tensor, "*lead d"], kind: Literal["l2", "cosine"] = "l2"
) -> Float[Tensor, " *lead"]:
    """Minus the distance of two vectors, or the cosine between them."""
    a, b = full_precision(a), full_precision(b)
    score: Tensor = -torch.linalg.vector_norm(a - b, dim=-1) if kind == "l2" else F.cosine_similarity(a, b, dim=-1)
    return score


def penalty(z: Float[Tensor, "b t d"], *, l1: float, l2: float) -> Float[Tensor, " b"]:
    """Weighted l1 and l2 lengths of the codes, mean over the frames of a clip."""
    lengths: Tensor = l1 * torch.linalg.vector_norm(z, 1, dim=-1) + l2 * torch.linalg.vector_norm(z, 2, dim=-1)
    return lengths.mean(1)


def log_mean_exp(x: Float[Tensor, "*lead"], where: Bool[Tensor, "*lead"]) -> Float[Tensor, ""]:
    """Logarithm of the mean of exp(x) over what counts on all ranks, whole on each of them; it does not overflow.

    0 where nothing counts, as in the only clip of a batch, which has no stranger.
    """
    everyone, counted = ranks.gather(x.flatten()), ranks.gather(where.flatten().to(torch.uint8)).bool()
    least = torch.finfo(x.dtype).min  # not -inf, whose gradients are nan where nothing counts
    mean = everyone.masked_fill(~counted, least).logsumexp(0) - counted.sum().clamp_min(1).to(x.dtype).log()
    return torch.where(counted.any(), mean, torch.zeros_like(mean))


def cyclic_shifts(num: int, *, count: int, step: int) -> Int[Tensor, " m"]:
    """At most `count` different distances below `num`, drawn by the step: the same on all ranks."""
    draw = torch.Generator().manual_seed(step)
    return torch.randperm(num - 1, generator=draw)[:count] + 1


def strangers(
    z: Float[Tensor, "b t d"], valid: Bool[Tensor, " b"], *, count: int, step: int
) -> tuple[Float[Tensor, "b m t d"], Bool[Tensor, "b m"]]:
    """For each clip those at `cyclic_shifts` from it in the global batch, never itself; and which of them count."""
    everyone, counted = ranks.gather(z), ranks.gather(valid.to(torch.uint8)).bool()
    own = torch.arange(len(z)) + ranks.rank() * len(z)
    at = (own[:, None] + cyclic_shifts(len(everyone), count=count, step=step)) % len(everyone)
    return everyone[at.to(z.device)], counted[at.to(z.device)]
