"""The interface of a simulator: it plays the expert's demonstrations, and rolls out policies in given scenes.

The environments are in another package; `open_simulator` finds it by name. This module does not import torch, because
the worker processes of a simulator import it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from jaxtyping import Bool, Float32, Int, UInt8
from numpy import ndarray

from robossl.common.plugins import SIMULATOR
from robossl.errors import InputError


@dataclass(frozen=True, slots=True)
class RolloutView:
    """What the policy gets at one step: a row for each episode that still runs."""

    slots: Int[ndarray, " n"]  # index of each row's episode among those that are played together
    scenes: Int[ndarray, " n"]  # seed of each row's scene
    started: bool  # True at the first step of these episodes
    frames: UInt8[ndarray, "n h w 3"]
    proprioception: Float32[ndarray, "n p"]  # state of the robot itself
    state: Float32[ndarray, "n s"]  # the whole state, that of the robot first


Act = Callable[[RolloutView], Float32[ndarray, "n a"]]  # returns actions in [-1, 1], the whole range of each joint


@dataclass(frozen=True, slots=True)
class Rollout:
    """What became of one episode of a policy."""

    scene: int  # seed of the scene
    success: bool  # at any step
    final_success: bool  # at the last step
    total_reward: float
    num_steps: int


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """Frames of the expert's successful episodes, one after the other, with the expert's clean actions."""

    frames: UInt8[ndarray, "n h w 3"]
    proprioception: Float32[ndarray, "n p"]
    state: Float32[ndarray, "n s"]
    actions: Float32[ndarray, "n a"]  # in [-1, 1], without the noise that was added when they were played
    starts: Bool[ndarray, " n"]  # True for the first frame of an episode
    num_episodes: int
    num_failed: int  # episodes in which the expert failed; they are left out


class Simulator(Protocol):
    """One environment, with an expert and with nuisance factors at given strengths.

    Attributes:
        factors: Names of the nuisance factors that can be set.
        largest_strength: The severest strength of a factor; the mildest is 1.
        proprioception_dim: Length of the robot's own state; 0 if the environment does not tell it.
        proprioception_names: Names of its dimensions; empty if the environment does not tell them.
        action_range: What the actions -1 and 1 of a policy stand for, in the units of the environment.
    """

    factors: tuple[str, ...]
    largest_strength: int
    proprioception_dim: int
    proprioception_names: tuple[str, ...]
    action_range: tuple[tuple[float, ...], tuple[float, ...]]

    def demonstrate(self, scenes: Sequence[int], *, episodes: int, noise: float) -> Demonstrations:
        """Play the expert in scenes, in their order, until it has succeeded in `episodes` of them.

        Args:
            scenes: Seeds of the scenes.
            episodes: Number of successful episodes.
            noise: Standard deviation of the noise that is added to the played actions, as a share of half their range.

        Raises:
            InputError: the expert succeeds in fewer of the scenes, or the environment does not report success.
        """
        ...

    def play(
        self, act: Act, *, scenes: Sequence[int], strengths: Mapping[str, int], watch: Callable[[int], None]
    ) -> list[Rollout]:
        """Play an episode of the policy in each scene; the result depends on nothing but the arguments.

        Args:
            act: The policy.
            scenes: Seeds of the scenes.
            strengths: Strength of each nuisance factor; those not named are off.
            watch: Function that gets the number of episodes that ended since its last call.

        Raises:
            InputError: the environment fails.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_simulator(env: str, *, workers: int, image_size: int, module: Sequence[str]) -> Simulator:
    """Open the simulator of an environment; its worker processes start now.

    Raises:
        InputError: the package of environments is not installed, the environment is unknown, or it lacks something that
            demonstrations or rollouts need.
    """
    try:
        make = pkgutil.resolve_name(SIMULATOR)
    except ModuleNotFoundError as error:
        raise InputError(
            f"policies need the environments' package ({error.name} is missing); pip install 'robossl[envs]'"
        ) from error
    opened: Simulator = make(env, workers=workers, image_size=image_size, modules=tuple(module))
    return opened
