"""Train Stable-Baselines3's SAC or PPO on embeddings, and draw learning curves over three seeds.

    pip install 'stable-baselines3>=2.7'
    python examples/learning_curve.py runs/mine --env robossl/Reach-v0 --out curves/reach

`EncodedObservation` gives the learner a vector, so `MlpPolicy` works without changes. Two references are trained too:
random weights of the same backbone (an encoder that has learned nothing) and the true state (the upper bound). All
learners are tested on the same scenes, which are none of those of the training. OUT/curves.png is drawn after every
finished training. After a kill, run the same line again: it goes on after the last finished training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import robossl_envs  # noqa: F401  registers the environments
from robossl_envs.encoded import EncodedObservation

from robossl.common.atomic_io import atomic_write
from robossl.encoders.inference import FrameEncoder, identity, load_encoder, random_encoder
from robossl.measure.subjects.references import random_config

TEST_SEED = 1_000_000  # far from the seeds of the training


@dataclass(frozen=True)
class Settings:
    """What a finished training must share with the others in its folder."""

    env: str
    algorithm: str
    steps: int
    every: int
    test_episodes: int
    image_size: int
    stack: int


def make_env(settings: Settings, encode: FrameEncoder | None) -> gymnasium.Env[Any, Any]:
    """Make an environment whose observation is the embeddings of the last frames, or the true state."""
    if encode is None:
        return gymnasium.make(settings.env, obs_type="state")
    env = gymnasium.make(settings.env, obs_type="pixels", image_size=settings.image_size)
    return EncodedObservation(env, encode, stack=settings.stack)


def make_learner(settings: Settings, env: gymnasium.Env[Any, Any], seed: int) -> Any:
    """Make the learner of Stable-Baselines3 with its default settings, on the CPU."""
    try:
        from stable_baselines3 import PPO, SAC
    except ImportError as error:
        raise SystemExit("this example needs Stable-Baselines3: pip install 'stable-baselines3>=2.7'") from error
    if settings.algorithm == "ppo":
        return PPO("MlpPolicy", env, n_steps=min(2048, settings.every), seed=seed, device="cpu")
    # A larger buffer than there are steps would only cost memory: embeddings are wide.
    return SAC("MlpPolicy", env, buffer_size=settings.steps, seed=seed, device="cpu")


def test(env: gymnasium.Env[Any, Any], learner: Any, num_episodes: int) -> tuple[float, float]:
    """Return the share of episodes with success at their end, and the mean return."""
    successes, total = 0, 0.0
    for seed in range(TEST_SEED, TEST_SEED + num_episodes):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            action, _ = learner.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, info = env.step(action)
            total += float(reward)
            over = terminated or truncated
        successes += bool(info["is_success"])
    return successes / num_episodes, total / num_episodes


def train(settings: Settings, encode: FrameEncoder | None, seed: int) -> Iterator[dict[str, float]]:
    """Train and yield a point of the curve every so many steps, the first one before any step."""
    env, test_env = make_env(settings, encode), make_env(settings, encode)
    learner = make_learner(settings, env, seed)
    while True:
        success, mean_return = test(test_env, learner, settings.test_episodes)
        yield {"step": learner.num_timesteps, "success": success, "return": mean_return}
        if learner.num_timesteps >= settings.steps:
            break
        learner.learn(settings.every, reset_num_timesteps=False)
    env.close()
    test_env.close()


def run_cell(path: Path, settings: Settings, name: str, encode: FrameEncoder | None, seed: int) -> None:
    """Train one learner, unless its curve is there already.

    Raises:
        SystemExit: the curve is there, but of other settings or of another encoder.
    """
    about = {
        "settings": dataclasses.asdict(settings),
        "row": name,
        "seed": seed,
        "encoder": None if encode is None else identity(encode.card),
    }
    if path.is_file():
        kept = json.loads(path.read_text())
        if different := [key for key in about if kept[key] != about[key]]:
            raise SystemExit(f"{path} was made with another {', '.join(different)}; choose another --out")
        return
    curve = []
    for point in train(settings, encode, seed):
        curve.append(point)
        print(f"  {name:24} seed {seed} step {point['step']:7d} success {point['success']:.2f}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(about | {"curve": curve}, indent=1) + "\n")


def draw(out: Path, settings: Settings) -> None:
    """Draw success over steps: the mean over the seeds of each row, and a band from the worst to the best seed."""
    from matplotlib.figure import Figure

    rows: dict[str, list[list[dict[str, float]]]] = {}
    for path in sorted((out / "cells").glob("*.json")):
        cell = json.loads(path.read_text())
        rows.setdefault(cell["row"], []).append(cell["curve"])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for name, curves in rows.items():
        steps = [point["step"] for point in curves[0]]
        success = np.array([[point["success"] for point in curve] for curve in curves])
        (line,) = axis.plot(steps, success.mean(0), label=f"{name}, {len(curves)} seeds")
        axis.fill_between(steps, success.min(0), success.max(0), alpha=0.2, color=line.get_color(), linewidth=0)
    axis.set(xlabel="steps in the environment", ylabel="success", ylim=(-0.02, 1.02))
    axis.set_title(f"{settings.algorithm.upper()} on {settings.env}; mean, worst and best seed", fontsize=10)
    axis.legend(fontsize=8)
    with atomic_write(out / "curves.png") as aside:
        figure.savefig(aside, format="png", dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Train on the encoder and on its references, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="a run folder, an encoder folder, an exported model, timm:NAME or pip:NAME")
    parser.add_argument("--out", type=Path, required=True, help="folder of the curves")
    parser.add_argument("--env", default="robossl/Reach-v0", help="one of robossl's environments")
    parser.add_argument("--algorithm", choices=("sac", "ppo"), default="sac")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=2_500, help="steps between tests")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--test-episodes", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--stack", type=int, default=3, help="number of last frames whose embeddings are concatenated")
    args = parser.parse_args(argv)
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: getattr(args, name) for name in names})
    encode = load_encoder(args.encoder, outputs=("pooled",))
    rows = {
        "encoder": (encode.card.name, encode),
        "random": (
            f"random {encode.card.backbone}",
            random_encoder(random_config(encode.card), 0, outputs=("pooled",)),
        ),
        "state": ("true state", None),
    }
    for seed in args.seeds:  # all rows of a seed first, so that a picture that is not finished compares all rows
        for key, (name, source) in rows.items():
            run_cell(args.out / "cells" / f"{key}-seed{seed}.json", settings, name, source, seed)
            draw(args.out, settings)
    print(f"wrote {args.out / 'curves.png'}")


if __name__ == "__main__":
    main()
