"""Clone the scripted expert from embeddings and measure the success rate of the clone.

    python examples/encoded_policy.py RUN                         # a run folder, an encoder folder or an exported model
    python examples/encoded_policy.py --server 127.0.0.1:8001     # the same through `robossl serve`

`EncodedObservation` puts any encoder between the environment and the learner, which sees a vector from torch,
onnxruntime or a server. Two references are measured too: random weights of the same backbone (an encoder that has
learned nothing) and the true state (the upper bound).
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import numpy as np
import robossl_envs  # noqa: F401  registers the environments
from jaxtyping import Float32
from numpy import ndarray
from numpy.random import Generator
from robossl_client.client import EncoderClient
from robossl_envs.encoded import EncodedObservation
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from robossl.encoders.inference import FrameEncoder, load_encoder, random_encoder
from robossl.measure.subjects.references import random_config

NOISE = 0.5  # std added to the executed action, so the clone learns to recover (DART, arXiv:1703.09327)
TEST_SEED = 1_000_000  # far from the seeds of the demonstrations
POLICIES = {
    "ridge": lambda: RidgeCV(10.0 ** np.arange(-2, 6)),
    "mlp": lambda: MLPRegressor(hidden_layer_sizes=(256, 256), early_stopping=True, max_iter=300, random_state=0),
}


def make_env(env_id: str, encode: FrameEncoder | None, *, image_size: int, stack: int) -> gymnasium.Env[Any, Any]:
    """Make an environment whose observation is the embeddings of the last frames, or the true state."""
    if encode is None:
        return gymnasium.make(env_id, obs_type="state")
    return EncodedObservation(gymnasium.make(env_id, obs_type="pixels", image_size=image_size), encode, stack=stack)


def demonstrate(env: gymnasium.Env[Any, Any], num_episodes: int) -> tuple[Float32[ndarray, "t d"], ndarray]:
    """Return observations and actions of the expert while noise disturbs its hand."""
    rng = np.random.default_rng(0)
    expert = env.get_wrapper_attr("expert")
    seen, done = [], []
    for seed in range(num_episodes):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            seen.append(observation)
            done.append(expert())
            observation, _, terminated, truncated, _ = env.step(add_noise(done[-1], rng))
            over = terminated or truncated
    return np.stack(seen), np.stack(done)


def add_noise(action: Float32[ndarray, " k"], rng: Generator) -> Float32[ndarray, " k"]:
    """Add noise to an action."""
    noisy: Float32[ndarray, " k"] = np.clip(action + NOISE * rng.normal(size=action.shape), -1, 1).astype(np.float32)
    return noisy


def success_rate(env: gymnasium.Env[Any, Any], policy: Any, num_episodes: int) -> float:
    """Return the share of episodes in which the policy succeeds."""
    successes = 0
    for seed in range(TEST_SEED, TEST_SEED + num_episodes):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            action = np.clip(policy.predict(observation[None])[0], -1, 1).astype(np.float32)
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        successes += bool(info["is_success"])
    return successes / num_episodes


def main(argv: list[str] | None = None) -> None:
    """Clone and test on the encoder and its references."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="?", help="a run folder, an encoder folder or an exported model")
    parser.add_argument("--server", metavar="HOST:PORT", help="an encoder on a server of `robossl serve`")
    parser.add_argument("--env", default="robossl/Reach-v0", help="one of robossl's environments")
    parser.add_argument("--episodes", type=int, default=100, help="demonstrations of the expert")
    parser.add_argument("--test-episodes", type=int, default=50)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--stack", type=int, default=1, help="number of last frames whose embeddings are concatenated")
    parser.add_argument("--policy", choices=POLICIES, default="mlp")
    args = parser.parse_args(argv)
    if (args.encoder is None) == (args.server is None):
        parser.error("name an encoder or a --server")
    outputs = ("pooled",)
    encode: FrameEncoder = load_encoder(args.encoder, outputs=outputs) if args.encoder else EncoderClient(args.server)
    rows = {
        "true state": None,
        encode.card.name: encode,
        f"random {encode.card.backbone}": random_encoder(random_config(encode.card), 0, outputs=("pooled",)),
    }
    print(
        f"{args.env}: {args.policy} on {args.episodes} demonstrations, {args.test_episodes} episodes each", flush=True
    )
    for name, source in rows.items():
        env = make_env(args.env, source, image_size=args.image_size, stack=args.stack)
        policy = make_pipeline(StandardScaler(), POLICIES[args.policy]())
        policy.fit(*demonstrate(env, args.episodes))
        print(f"  {name:24} success {success_rate(env, policy, args.test_episodes):.2f}", flush=True)


if __name__ == "__main__":
    main()
