"""Collapse monitor: check whether a method's outputs still differ between samples, and warn if they do not."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from robossl.methods.parts.losses import full_precision, unit

# A std below this is low. The unit is the std of d-dimensional outputs that are spread evenly over the sphere, which is
# 1 / sqrt(d).
LOW_STD = 0.1
# Number of consecutive checks with a low std that give a warning. One such check is no reason for a warning, because
# the first steps of a healthy run can have a low std, too.
LOW_CHECKS = 3
LOW_RANK = 2.0
# Minimum number of samples for a warning about a low rank, because b samples have rank b - 1 at most.
MIN_SAMPLES_FOR_RANK = 8


def std_normalised(z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the std over samples of l2-normalised outputs, averaged over dimensions (arXiv:2011.10566, figure 2).

    The value is 0 if all outputs are equal (collapse), and 1 / sqrt(d) if they are spread evenly over the sphere.
    """
    return unit(z).std(dim=0, correction=0).mean()


def effective_rank(z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the effective number of directions, 1 to min(b - 1, d): exp of the entropy of the singular values.

    This is RankMe (arXiv:2210.02885), but of centred outputs, so that a constant offset does not count as a direction.
    """
    x = full_precision(z)
    singular = torch.linalg.svdvals(x - x.mean(dim=0))
    rounding = torch.finfo(x.dtype).eps * torch.linalg.matrix_norm(x)
    singular = torch.where(singular > rounding, singular, 0)  # drops rounding noise, which has full rank
    share = singular / singular.sum().clamp_min(torch.finfo(x.dtype).tiny)
    entropy = -torch.xlogy(share, share).sum()
    return entropy.exp()


def alignment(z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the mean squared distance between the l2-normalised outputs of a sample's two views (arXiv:2005.10242).

    A view is an augmented frame. The value is 0 to 4.
    """
    return (unit(z0) - unit(z1)).square().sum(dim=1).mean()


def uniformity(z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return log mean exp(-2 |x - y|^2) over pairs x, y of l2-normalised outputs (arXiv:2005.10242).

    The value is 0 if all outputs are equal (collapse), and about -4 if they are spread evenly over the sphere.
    """
    distances = F.pdist(unit(z))
    return distances.square().mul(-2).exp().mean().log()


class CollapseCheck(NamedTuple):
    """Metrics of one check, and a warning about the outputs; `warning` is None if they are healthy."""

    metrics: dict[str, float]
    warning: str | None


class CollapseMonitor:
    """Checks the outputs of a run for collapse.

    The number of consecutive checks with a low std is saved, so that a resumed run warns at the same step.
    """

    def __init__(self) -> None:
        self.low_checks = 0

    def check(self, outputs: tuple[Float[Tensor, "b d"], ...]) -> CollapseCheck:
        """Check the outputs of the global batch, one tensor for each view (augmented version of the samples)."""
        if len(outputs[0]) < 2:
            return CollapseCheck({}, None)  # a single sample has nothing to be compared with
        if not all(z.isfinite().all() for z in outputs):
            return CollapseCheck({}, "the outputs are not finite; the run stops at the next check of the loss")
        stds = [std_normalised(z) for z in outputs]
        spread = _mean([std * z.shape[1] ** 0.5 for std, z in zip(stds, outputs, strict=True)])
        rank = _mean([effective_rank(z) for z in outputs])
        metrics = {
            "health/std": _mean(stds),
            # This would be the std if the outputs were spread evenly over the sphere.
            "health/std_reference": sum(z.shape[1] ** -0.5 for z in outputs) / len(outputs),
            "health/rank": rank,
            "health/uniformity": _mean([uniformity(z) for z in outputs]),
        }
        if len(outputs) > 1 and outputs[0].shape == outputs[1].shape:
            metrics["health/alignment"] = float(alignment(outputs[0], outputs[1]))
        self.low_checks = self.low_checks + 1 if spread < LOW_STD else 0
        enough = len(outputs[0]) >= MIN_SAMPLES_FOR_RANK
        return CollapseCheck(metrics, self._warning(spread, rank if enough else float("inf")))

    def _warning(self, spread: float, rank: float) -> str | None:
        if self.low_checks >= LOW_CHECKS:
            return (
                "collapse: all frames get nearly the same output (its std has been under "
                f"{LOW_STD} of a healthy one for {self.low_checks} checks, now {spread:.3f}); the encoder "
                "learns nothing like this. Try a lower learning rate, a larger batch, the method's default "
                "head and stop-gradient"
            )
        if rank < LOW_RANK:
            return (
                f"collapse: the outputs of all frames lie along one direction (effective rank {rank:.2f}, a "
                "healthy one is many times that); one number is all the encoder says of a frame. Try more "
                "varied data, stronger augmentation, a lower learning rate, the method's default batch-norm"
            )
        return None

    def state_dict(self) -> dict[str, int]:
        """Return the state for a checkpoint, as plain numbers."""
        return {"low_checks": self.low_checks}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the state that `state_dict` returned."""
        self.low_checks = state["low_checks"]


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
