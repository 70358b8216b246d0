"""Open any registered gymnasium environment for collection. If it cannot be used, an error says why in one line."""

from __future__ import annotations

import difflib
import importlib
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Box, Discrete
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from robossl.common.plugins import search_working_folder
from robossl.errors import InputError, reason
from robossl_envs.agents.agent import check_space
from robossl_envs.collection.settings import DEFAULT_STEPS, CollectionSettings
from robossl_envs.lerobot_layout import Column

STATE, ENVIRONMENT, NUISANCE = "observation.state", "observation.environment_state", "nuisance"
# Key in the environment's `info` dict -> column of the data set.
VECTORS = {"agent_state": STATE, "environment_state": ENVIRONMENT, "nuisance": NUISANCE}

Environment = gymnasium.Env[Any, Any]


@dataclass(frozen=True, slots=True)
class EnvDescription:
    """What collection needs to know about an environment: frame size, frame rate, columns, nuisances and speed."""

    height: int
    width: int
    frames_per_s: int
    max_steps: int
    columns: tuple[Column, ...]
    nuisances: tuple[str, ...]  # nuisance factors (such as light); each gets a random strength per episode
    step_seconds: float  # time of one step with rendering; serves to estimate the time of the collection


def open_env(settings: CollectionSettings) -> Environment:
    """Make the environment, and pass the requested frame size if its constructor takes `image_size`.

    Raises:
        InputError: the environment is not registered, cannot be made on this machine, or renders no pictures, or a
            module cannot be imported.
    """
    for module in settings.modules:
        import_env_module(module)
    spec = find_spec(settings.env)
    creator = _creator(spec)
    modes = getattr(creator, "metadata", {}).get("render_modes")
    if modes is not None and "rgb_array" not in modes:
        offered = ", ".join(modes) or "nothing"
        raise InputError(f"{settings.env} cannot render rgb_array (it offers {offered}), so there are no frames")
    options: dict[str, Any] = {"render_mode": "rgb_array", "disable_env_checker": True}
    if "image_size" in inspect.signature(creator).parameters:
        options["image_size"] = settings.image_size
    try:
        return gymnasium.make(
            spec, max_episode_steps=settings.max_steps or spec.max_episode_steps or DEFAULT_STEPS, **options
        )
    except Exception as error:
        raise InputError(_describe_failure(settings.env, error)) from None


def import_env_module(module: str) -> None:
    """Import a package that registers environments.

    Raises:
        InputError: the package cannot be imported.
    """
    search_working_folder()
    try:
        importlib.import_module(module)
    except Exception as error:  # a foreign module may raise anything
        said = f"{type(error).__name__}: {reason(error)}"
        raise InputError(
            f"--module {module or repr(module)} cannot be imported ({said}); is it installed, or in this folder? "
            "Or run: robossl doctor ENV --module NAME"
        ) from None


def find_spec(env: str) -> EnvSpec:
    """Return the registration of an environment id.

    Raises:
        InputError: the id is not registered; the message names the nearest ids.
    """
    try:
        return gymnasium.spec(env)
    except (gymnasium.error.Error, ImportError) as error:
        if isinstance(error, ImportError):
            raise InputError(_describe_failure(env, error)) from None
    near = difflib.get_close_matches(env, gymnasium.registry, n=3, cutoff=0.4)
    known = near or [name for name in gymnasium.registry if name.startswith("robossl/")]
    raise InputError(
        f"no environment {env!r} is registered; the nearest ids are {', '.join(known)}; "
        "if an installed package registers it, name the package with --module NAME"
    )


def _creator(spec: EnvSpec) -> Callable[..., Any]:
    if callable(spec.entry_point):
        return spec.entry_point
    try:
        creator: Callable[..., Any] = load_env_creator(str(spec.entry_point))
    except Exception as error:  # a foreign module may raise anything
        raise InputError(_describe_failure(spec.id, error)) from None
    return creator


def _describe_failure(env: str, error: Exception) -> str:
    return f"{env} cannot be made ({type(error).__name__}: {reason(error)}); robossl doctor {env} says what is missing"


def describe(env: Environment, settings: CollectionSettings) -> EnvDescription:
    """Reset the environment, take a step, and describe what can be recorded.

    Raises:
        InputError: the environment fails or renders no frames, its actions are not supported, or it lacks a requested
            nuisance.
    """
    check_space(env)
    try:
        env.reset(seed=0)
        height, width = frame_size(render_raw(env), settings.image_size)
        started = time.monotonic()
        env.action_space.seed(0)
        observation, _, _, _, info = env.step(env.action_space.sample())
        render_frame(env, height, width)
        step_seconds = time.monotonic() - started
    except InputError:
        raise
    except Exception as error:
        raise InputError(_describe_failure(settings.env, error)) from None
    spec = env.spec
    names: dict[str, tuple[str, ...]] = (
        env.get_wrapper_attr("state_names") if env.has_wrapper_attr("state_names") else {}
    )
    found = state_columns(observation, info)
    columns = [
        Column(name, "float32", len(found[name]), names.get(key)) for key, name in VECTORS.items() if name in found
    ]
    columns.append(_action_column(env))
    columns += [Column("next.reward", "float32"), Column("next.done", "bool")]
    columns += [Column("next.success", "bool")] if "is_success" in info else []
    columns += [Column("agent", "string")]
    return EnvDescription(
        height=height,
        width=width,
        frames_per_s=settings.frames_per_s or round(env.metadata.get("render_fps") or 30),
        max_steps=(spec.max_episode_steps if spec else None) or DEFAULT_STEPS,
        columns=tuple(columns),
        nuisances=_nuisances(settings, _effective_nuisances(env, names)),
        step_seconds=step_seconds,
    )


def _action_column(env: Environment) -> Column:
    space = env.action_space
    if isinstance(space, Discrete):
        return Column("action", "int64")
    assert isinstance(space, Box), "`check_space` lets nothing else pass"
    return Column("action", "float32", int(np.prod(space.shape)))


def _effective_nuisances(env: Environment, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the nuisance factors that have an effect in the environment.

    If the environment has an attribute `factors`, return the names in it. Otherwise return all nuisances that `names`
    lists under the key "nuisance".
    """
    known: tuple[str, ...] = names.get("nuisance", ())
    return env.get_wrapper_attr("factors") if known and env.has_wrapper_attr("factors") else known


def _nuisances(settings: CollectionSettings, known: tuple[str, ...]) -> tuple[str, ...]:
    chosen = known if settings.nuisances == ("all",) else settings.nuisances
    if settings.nuisances and not known:
        raise InputError(f"{settings.env} has no nuisances to set; leave --nuisances out")
    wrong = [name for name in chosen if name not in known]
    if wrong:
        raise InputError(f"{settings.env} has no nuisance {', '.join(wrong)}; choose from all, {', '.join(known)}")
    return chosen


def state_columns(observation: Any, info: dict[str, Any]) -> dict[str, ndarray]:
    """Return the state vectors of one frame, by column name.

    If `info` has no agent state and the observation is a vector, the observation is used as the agent state.
    """
    found = {name: np.array(info[key], np.float32).reshape(-1) for key, name in VECTORS.items() if key in info}
    flat = isinstance(observation, ndarray) and observation.ndim == 1
    return found if STATE in found or not flat else {STATE: observation.astype(np.float32), **found}


def render_raw(env: Environment) -> UInt8[ndarray, "h w 3"]:
    """Return the current picture in the environment's own size.

    Raises:
        InputError: the result of `render` is not a uint8 picture (h, w, 3).
    """
    frame: Any = env.render()
    if not isinstance(frame, ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, ndarray) else type(frame).__name__
        raise InputError(f"render() must give uint8 (h, w, 3), got {got}: this environment cannot be collected from")
    return frame


def frame_size(frame: UInt8[ndarray, "h w 3"], image_size: int) -> tuple[int, int]:
    """Return height and width of a frame that is scaled to a shorter side of `image_size`.

    Both are even, because the pixel format yuv420p needs that.
    """
    scale = image_size / min(frame.shape[:2])
    height, width = (2 * round(side * scale / 2) for side in frame.shape[:2])
    return height, width


def render_frame(env: Environment, height: int, width: int) -> UInt8[ndarray, "h w 3"]:
    """Return the current picture as a frame of this size. Scale the picture if the environment renders another size."""
    frame = render_raw(env)
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
