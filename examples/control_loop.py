"""Control loop at 30 Hz: send frames to a served encoder, and act on its newest embedding.

    robossl serve quickstart/models                # in another terminal
    python examples/control_loop.py --demonstrations 20 --episodes 5

First an expert demonstrates the task, with noise on its actions. The server embeds these frames as batch requests, and
ridge regression learns the expert's action from embedding and tool position (behaviour cloning). Then the policy
drives. Each tick sends its frame, waits at most --wait-ms, and acts on the newest embedding; if that is older than
--deadline-ms, the robot stands still and the tick counts as missed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gymnasium
import numpy as np
from numpy import ndarray
from robossl_client.client import EncoderClient
from robossl_client.latest import Latest

Policy = Callable[[ndarray, ndarray], ndarray]  # embedding (d,), tool (4,) -> action (2,)
STILL = np.zeros(2, np.float32)


@dataclass
class Drive:
    """Statistics of driving."""

    ages_s: list[float] = field(default_factory=list)  # of the embeddings used, from capture to action
    num_ticks: int = 0
    num_missed: int = 0  # ticks without a fresh enough embedding
    num_late: int = 0  # ticks that started late
    num_successes: int = 0


def demonstrate(env: gymnasium.Env, episodes: int, steps: int) -> tuple[ndarray, ndarray, ndarray, int]:
    """Run the expert; return frames, tool states, actions, and the number of successes."""
    rng = np.random.default_rng(0)
    frames, tools, actions, successes = [], [], [], 0
    for episode in range(episodes):
        observation, info = env.reset(seed=episode)
        for _ in range(steps):
            action = env.unwrapped.expert()
            frames.append(observation["pixels"])
            tools.append(observation["agent_pos"])
            actions.append(action)
            # Noise leads to states from which the expert shows the way back.
            noisy = np.clip(action + rng.normal(0, 0.3, 2), -1, 1).astype(np.float32)
            observation, _, is_done, _, info = env.step(noisy)
            if is_done:
                break
        successes += bool(info["is_success"])
    return np.stack(frames), np.stack(tools), np.stack(actions), successes


def fit_ridge(inputs: ndarray, actions: ndarray, *, strength: float = 100.0) -> Policy:
    """Fit ridge regression from standardised inputs (n, d) to actions (n, 2)."""
    mean, scale = inputs.mean(0), inputs.std(0) + 1e-6
    x, middle = (inputs - mean) / scale, actions.mean(0)
    weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ (actions - middle))

    def policy(embedding: ndarray, tool: ndarray) -> ndarray:
        action = (np.concatenate([embedding, tool]) - mean) / scale @ weights + middle
        return np.clip(action, -1, 1).astype(np.float32)

    return policy


def held_out(embeddings: ndarray, tools: ndarray, actions: ndarray) -> float:
    """Fit a policy to the first four fifths of the frames; return its R2 on the last fifth."""
    cut = len(actions) * 4 // 5
    policy = fit_ridge(np.concatenate([embeddings, tools], 1)[:cut], actions[:cut])
    done = np.stack([policy(*row) for row in zip(embeddings[cut:], tools[cut:], strict=True)])
    return float(1 - np.square(done - actions[cut:]).sum() / np.square(actions[cut:] - actions[cut:].mean(0)).sum())


def drive(env: gymnasium.Env, stream: Latest, policy: Policy, seed: int, args: argparse.Namespace, met: Drive) -> None:
    """Drive one episode in real time."""
    period_s = 1 / args.hz
    observation, info = env.reset(seed=seed)
    newest, captured_s = None, 0.0
    tick_s = time.monotonic()
    for _ in range(args.steps):
        now_s = time.monotonic()
        met.num_late += now_s > tick_s + 0.5 * period_s
        stream.send(observation["pixels"][None], captured_s=now_s)
        reply = stream.take(wait_ms=args.wait_ms)  # to this frame if it comes in time, otherwise to an older one
        if reply is not None:
            newest, captured_s = reply.features["pooled"][0], time.monotonic() - reply.age_s
        age_s = time.monotonic() - captured_s
        met.num_ticks += 1
        if newest is None or age_s > args.deadline_ms / 1e3:
            met.num_missed += 1
            action = STILL
        else:
            met.ages_s.append(age_s)
            action = policy(newest, observation["agent_pos"])
        observation, _, is_done, _, info = env.step(action)
        if is_done:
            break
        tick_s = max(tick_s + period_s, now_s)  # a late tick delays the following ones
        time.sleep(max(0.0, tick_s - time.monotonic()))
    met.num_successes += bool(info["is_success"])


def main() -> None:
    """Demonstrate, learn, and drive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="127.0.0.1:8001", help="host:port of `robossl serve`")
    parser.add_argument("--env", default="robossl/Push-v0")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--hz", type=float, default=30.0)
    parser.add_argument("--wait-ms", type=float, default=20.0, help="how long a tick waits for the reply to its frame")
    parser.add_argument("--deadline-ms", type=float, default=100.0, help="maximum age of an embedding to act on")
    parser.add_argument("--demonstrations", type=int, default=20, help="episodes of the expert")
    parser.add_argument("--episodes", type=int, default=5, help="episodes of the policy")
    parser.add_argument("--steps", type=int, default=200, help="maximum length of an episode")
    args = parser.parse_args()
    env = gymnasium.make(f"robossl_envs:{args.env}", obs_type="pixels_agent_pos", image_size=args.image_size)
    frames, tools, actions, successes = demonstrate(env, args.demonstrations, args.steps)
    print(f"expert: {successes} of {args.demonstrations} episodes succeeded, {len(frames)} frames")
    with EncoderClient(args.target, outputs=("pooled",), deadline_ms=60_000) as client:
        embeddings = client(frames)["pooled"]
        policy = fit_ridge(np.concatenate([embeddings, tools], 1), actions)
        print(
            f"policy: ridge regression on {embeddings.shape[1]} features of {client.card.name} {client.card.version}; "
            f"R2 {held_out(embeddings, tools, actions):.2f} of the expert's action in the last fifth of its frames"
        )
    met = Drive()
    with EncoderClient(args.target, robot="arm", outputs=("pooled",)) as client, client.latest() as stream:
        for episode in range(args.episodes):
            drive(env, stream, policy, 10_000 + episode, args, met)
        replaced, late = stream.num_replaced, stream.num_late
    p50_ms, p99_ms = (1e3 * np.percentile(met.ages_s or [np.nan], (50, 99))).tolist()
    print(
        f"driven at {args.hz:g} Hz: embeddings acted on are {p50_ms:.1f} ms old at the median, {p99_ms:.1f} ms "
        f"at the 99th percentile; {met.num_missed} of {met.num_ticks} ticks missed the deadline of "
        f"{args.deadline_ms:g} ms, {met.num_late} began late, {replaced} frames were replaced by newer ones, "
        f"{late} were too late"
    )
    print(f"policy: {met.num_successes} of {args.episodes} episodes succeeded")
    env.close()


if __name__ == "__main__":
    main()
