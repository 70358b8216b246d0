"""Train a policy on demonstrations: mean squared error to the expert's action (behaviour cloning).

Adam with weight decay, and a learning rate that falls along a cosine to zero, so that the last checkpoint is stable. It
is the only one that is rolled out: to choose the best of many on the rollouts themselves would flatter every encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from robossl.policies.policy import Policy, PolicyInputs
from robossl.policies.simulator import Demonstrations

BATCH = 64
LR = 1e-3
WEIGHT_DECAY = 0.1  # decoupled (AdamW); of the policy alone
SHIFT = 1 / 21  # largest random shift, in heights of the frame: 4 of 84 pixels, as in DrQ (arXiv:2004.13649)


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """A policy and the mean of its loss over the last tenth of its steps."""

    policy: Policy
    loss: float


def make_policy(inputs: PolicyInputs, demos: Demonstrations, *, stack: int) -> Policy:
    """Return an untrained policy for these demonstrations; weights are drawn from torch's global generator."""
    height, width = demos.frames.shape[1:3]
    vision = None if inputs.trained is None else inputs.trained((height, width))
    shape = inputs.features(demos.frames[:1]).shape[1:] if vision is None else vision.shape
    vector_dim, action_dim = inputs.vectors(demos).shape[1], demos.actions.shape[1]
    return Policy(inputs.head, vision, shape, vector_dim=vector_dim, stack=stack, action_dim=action_dim)


def train_policy(
    inputs: PolicyInputs, demos: Demonstrations, *, stack: int, steps: int, seed: int, device: str
) -> TrainedPolicy:
    """Train a policy; equal arguments give equal weights to the last bit on a CPU with one number of threads.

    The state of torch's random generators does not change.
    """
    features, vectors = inputs.features(demos.frames), inputs.vectors(demos)
    past = frames_before(demos.starts, stack)
    data = tuple(torch.from_numpy(each).to(device) for each in (features, vectors, demos.actions, past))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = make_policy(inputs, demos, stack=stack).to(device).train()
        _standardise(policy, *data[:2])
        order = _batches(len(demos.frames), torch.Generator().manual_seed(seed))
        return TrainedPolicy(policy, _fit(policy, data, order, steps=steps))


def _standardise(policy: Policy, features: Tensor, vectors: Tensor) -> None:
    """Give the policy mean and std of the demonstrations; those of a network's features are from before training."""
    policy.vector.fit(vectors)
    if policy.vision is None:
        policy.features.fit(features)
    else:
        with torch.no_grad():
            policy.features.fit(torch.cat([policy.vision(part) for part in torch.split(features, BATCH)]))


def _fit(policy: Policy, data: tuple[Tensor, ...], order: Iterator[Tensor], *, steps: int) -> float:
    features, vectors, actions, past = data
    vision = [] if policy.vision is None else [each for each in policy.vision.parameters() if each.requires_grad]
    rest = [each for name, each in policy.named_parameters() if not name.startswith("vision.")]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": LR, "weight_decay": WEIGHT_DECAY}]
    if policy.vision is not None:
        groups.append({"params": vision, "lr": policy.vision.lr, "weight_decay": 0.0})
    optim = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optim, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))
    last = 0.0
    tail = max(1, steps // 10)
    for step in range(steps):
        rows = next(order).to(features.device)
        seen = features[past[rows]]
        seen = seen if policy.vision is None else shift_frames(seen)
        loss = F.mse_loss(policy(seen, vectors[rows]), actions[rows])
        optim.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optim.step()
        schedule.step()
        if step >= steps - tail:
            last += float(loss.detach()) / tail
    return last


def _batches(num: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield rows of batches without end: each frame once in an epoch, in a new order each time."""
    size = min(BATCH, num)
    while True:
        order = torch.randperm(num, generator=generator)
        for first in range(0, num - size + 1, size):
            yield order[first : first + size]


def frames_before(starts: Bool[ndarray, " n"], stack: int) -> Int[ndarray, "n stack"]:
    """Return for each frame the rows of the last frames, itself last; an episode's first frame is repeated."""
    rows = np.arange(len(starts))
    first = np.maximum.accumulate(np.where(starts, rows, 0))
    past: Int[ndarray, "n stack"] = np.maximum(rows[:, None] + np.arange(1 - stack, 1), first[:, None])
    return past


def shift_frames(frames: Tensor) -> Tensor:
    """Shift the frames (b, stack, h, w, c) of each sample at random; the border is repeated. All of a stack move alike.

    Random numbers come from torch's global generator.
    """
    b, _, height, width, _ = frames.shape
    largest = max(1, round(height * SHIFT))
    moves = torch.randint(-largest, largest + 1, (b, 2)).to(frames.device)
    y, x = (
        (torch.arange(size, device=frames.device) + moves[:, axis, None]).clamp(0, size - 1)
        for axis, size in enumerate((height, width))
    )
    sample = torch.arange(b, device=frames.device)[:, None, None]
    return frames.transpose(0, 1)[:, sample, y[:, :, None], x[:, None, :]].transpose(0, 1)
