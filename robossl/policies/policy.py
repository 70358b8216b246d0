"""The policy: standardised features of the frames, a head that reads them, a vector beside it, and an MLP 256-256.

R3M and VC-1 have a batch-norm in front of the MLP. Here its statistics are those of all demonstrations, from the start:
with statistics of batches, a policy of the true state reached less than half as many goals of twenty demonstrations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from robossl.measure.subjects import Subject
from robossl.policies.heads import resolve_head
from robossl.policies.simulator import Demonstrations, RolloutView

Vector = Literal["none", "proprioception", "state"]
HIDDEN = 256


class TrainedVision(nn.Module):
    """A network that is trained with the policy: from uint8 frames (n, h, w, 3) to features.

    Attributes:
        lr: Its learning rate.
        shape: Shape of the features of one frame.
    """

    lr: float
    shape: tuple[int, ...]

    def forward(self, frames: Tensor) -> Tensor:
        """Return the features of frames."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class PolicyInputs:
    """What a policy gets: frozen features of the frames, a network that it trains, or nothing; and a vector.

    Args:
        vector: The vector beside the features.
        head: Name of the head that reads the features; "" if there are none.
        frozen: An encoder that stays as it is.
        trained: Function that makes a network, which is trained with the policy, for frames of a height and width.
    """

    vector: Vector
    head: str = ""
    frozen: Subject | None = None
    trained: Callable[[tuple[int, int]], TrainedVision] | None = None

    def features(self, frames: ndarray) -> ndarray:
        """Return what is kept of frames: frozen features, the frames themselves for a trained network, or nothing."""
        if self.frozen is not None:
            output = resolve_head(self.head).reads
            parts = [self.frozen(frames[at : at + 64])[output] for at in range(0, len(frames), 64)]
            return np.concatenate(parts)
        return frames if self.trained is not None else np.zeros((len(frames), 0), np.float32)

    def vectors(self, of: Demonstrations | RolloutView) -> Float[ndarray, "n v"]:
        """Return the vector of each frame, of length 0 if the policy gets none."""
        match self.vector:
            case "state":
                return of.state
            case "proprioception":
                return of.proprioception
        return np.zeros((len(of.frames), 0), np.float32)


class Standardise(nn.Module):
    """Subtracts the mean of the demonstrations from each channel (axis 1), and divides by their standard deviation.

    A channel that hardly varies is divided by a hundredth of the mean deviation, so that a shift cannot blow it up.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, values: Float[Tensor, "n d ..."]) -> None:
        """Take mean and standard deviation from these values."""
        if self.mean.numel():
            rows = values.transpose(0, 1).flatten(1).double()
            std = rows.std(1, correction=0)
            self.mean.copy_(rows.mean(1))
            self.std.copy_(std.clamp(min=max(0.01 * float(std.mean()), 1e-8)))

    def forward(self, values: Float[Tensor, "n d ..."]) -> Float[Tensor, "n d ..."]:
        """Return standardised values."""
        shape = (1, -1, *([1] * (values.ndim - 2)))
        return (values - self.mean.view(shape)) / self.std.view(shape)


class Policy(nn.Module):
    """Maps the last frames' features and a vector to an action. Weights are drawn from torch's global generator.

    Args:
        head: Name of the head that reads the features; "" if there are none.
        vision: The network that is trained with the policy; None if the features are frozen.
        shape: Shape of the features of one frame; (0,) if there are none.
        vector_dim: Length of the vector.
        stack: Number of frames that the policy sees at once.
        action_dim: Length of an action.
    """

    def __init__(
        self,
        head: str,
        vision: TrainedVision | None,
        shape: tuple[int, ...],
        *,
        vector_dim: int,
        stack: int,
        action_dim: int,
    ) -> None:
        super().__init__()
        self.vision = vision
        self.head = resolve_head(head)(shape) if head else None
        self.features = Standardise(shape[0])
        self.vector = Standardise(vector_dim)
        dim = (stack * self.head.dim if self.head else 0) + vector_dim
        self.body = nn.Sequential(
            nn.Linear(dim, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, action_dim),
        )

    def forward(self, features: Tensor, vectors: Float[Tensor, "b v"]) -> Float[Tensor, "b a"]:
        """Return actions.

        Args:
            features: Features of the last frames (b, stack, ...); frames (b, stack, h, w, 3) in uint8 if the policy
                trains a network.
            vectors: The vector of each sample.
        """
        seen = features.flatten(0, 1)
        return self.act(seen if self.vision is None else self.vision(seen), vectors)

    def act(self, seen: Tensor, vectors: Float[Tensor, "b v"]) -> Float[Tensor, "b a"]:
        """Return actions for features (b x stack, ...) that the network, if the policy trains one, has made."""
        parts = [self.vector(vectors)]
        if self.head is not None:
            # A graph would keep the batch size that len() returns.
            parts.insert(0, self.head(self.features(seen)).reshape(vectors.shape[0], -1))
        actions: Tensor = self.body(torch.cat(parts, 1))
        return actions


class PolicyActor:
    """Lets a policy act in rollouts: embeds each frame once, and keeps the last features of each episode."""

    def __init__(self, policy: Policy, inputs: PolicyInputs, *, stack: int, device: str) -> None:
        self._policy, self._inputs, self._stack, self._device = policy.eval(), inputs, stack, device
        self._kept: ndarray = np.zeros(0)

    def __call__(self, view: RolloutView) -> Float[ndarray, "n a"]:
        """Return an action for each row."""
        new = self._inputs.features(view.frames)
        if view.started:
            self._kept = np.repeat(new[:, None], self._stack, axis=1)
        else:
            self._kept[view.slots] = np.roll(self._kept[view.slots], -1, axis=1)
            self._kept[view.slots, -1] = new
        features, vectors = self._kept[view.slots], self._inputs.vectors(view)
        with torch.inference_mode():
            out = self._policy(*(torch.from_numpy(each).to(self._device) for each in (features, vectors)))
        actions: Float[ndarray, "n a"] = out.cpu().numpy()
        return actions
