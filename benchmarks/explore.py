"""Who explores best, and whether the loop earns its place: `make explore`; goes on where it was stopped.

    python benchmarks/explore.py [--agents random pink count rnd] [--frames 10000] [--seeds 0 1 2] [--steps 240] ...

Frames of each agent are collected, ingested and pretrained on with the same configuration and the same number of steps.
Coverage is counted over all frames that an agent collected; the pose of the object is read off each encoder by ridge
regression on a set of episodes that no encoder saw. Then the loop (rounds of exploring by novelty and learning) stands
against as many frames collected at once and as many steps. Writes docs/exploration.md and docs/exploration.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cells import train_all
from exploration_text import page
from jaxtyping import Float, Int
from numpy import ndarray
from robossl_envs.collect import collect
from robossl_envs.explore import explore_loop
from robossl_envs.scene import WORKSPACE

from robossl.config import load, to_yaml
from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store
from robossl.encode import load_encode, random_encode
from robossl.evaluate.features import pixels_embedder
from robossl.evaluate.state import Probe, StateSettings, interval, open_probe
from robossl.evaluate.subjects import embedder, random_config
from robossl.run import RunConfig
from robossl.statistics import all_pairs

ENV, STATE, ENVIRONMENT = "robossl/Push-v0", "state", "observation.environment_state"
POSE = (0, 1, 2, 3)  # of the environment's state: x, y, sine and cosine of the block
EVALUATION_SEED = 1_000_000  # far from those of the arms and of the loop's rounds
CELLS = 10  # a side


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to come by frames; several rounds are the loop."""

    agent: str
    frames: int  # in all
    steps: int  # in all
    rounds: int = 1

    def folder(self, out: Path, seed: int) -> Path:
        """Where one seed of it lies."""
        name = f"{self.agent}_{self.frames}_frames_{self.steps}_steps_{self.rounds}_rounds_seed{seed}"
        return out / name

    def run(self, out: Path, seed: int) -> Path:
        """The run whose encoder counts."""
        last = [f"round_{self.rounds - 1}"] if self.rounds > 1 else []
        return self.folder(out, seed).joinpath(*last, "run")


def gather(folder: Path, collections: dict[str, dict[str, Any]], *, seed: int, image_size: int) -> Path:
    """Collect with one agent or several and ingest all of it into one store, which is returned."""
    for agent, amount in collections.items():
        collect(env=ENV, agent=agent, out=folder / agent, seed=seed, image_size=image_size, **amount)
    sources = [folder / agent for agent in collections]
    ingest(sources, out=folder / "store", short_side=image_size, licence="CC0-1.0")  # drawn here
    return folder / "store"


def recipe(args: argparse.Namespace, store: Path, *, steps: int, seed: int) -> RunConfig:
    """The configuration of one run, without what only costs time."""
    base = load(args.config, RunConfig)
    return replace(
        base,
        data=replace(base.data, store=store, split=None),
        optim=replace(base.optim, warmup_steps=min(base.optim.warmup_steps, steps // 10)),
        train=replace(base.train, steps=steps, checkpoint_every=max(1, steps // 4), sinks=()),
        seed=seed,
    )


def explore(arm: Arm, seed: int, args: argparse.Namespace) -> None:
    """One seed of the loop."""
    folder = arm.folder(args.out, seed)
    folder.mkdir(parents=True, exist_ok=True)
    config = args.out / f"loop_seed{seed}.yaml"
    config.write_text(to_yaml(recipe(args, folder / "store", steps=args.steps, seed=seed)))
    amount = {"rounds": arm.rounds, "frames": arm.frames // arm.rounds}
    explore_loop(config, env=ENV, out=folder, agent=arm.agent, image_size=args.image_size, **amount)


def cells_visited(store: Store) -> dict[str, int]:
    """Cells of a 10 x 10 grid over the table: where the hand was, where the block was, and both together."""
    rows = np.arange(store.num_frames)
    hand, block = (cell_of(store.column(name, rows)[:, :2]) for name in (STATE, ENVIRONMENT))
    both = hand * CELLS**2 + block
    return {"hand": len(np.unique(hand)), "block": len(np.unique(block)), "both": len(np.unique(both))}


def cell_of(places: Float[ndarray, "n 2"]) -> Int[ndarray, " n"]:
    """The grid spans the space inside the rails; what leans over its border counts to the outermost cells."""
    at = np.clip(np.floor((places + WORKSPACE) / (2 * WORKSPACE) * CELLS), 0, CELLS - 1).astype(np.int64)
    cells: Int[ndarray, " n"] = at[:, 0] * CELLS + at[:, 1]
    return cells


def scores_of(runs: list[Path], probe: Probe, cache: Path) -> Float[ndarray, "s b"]:
    """R2 of the pose from each run's encoder, on every resample of the evaluation's episodes."""
    found = []
    for run in runs:
        found.append(probe(embedder(str(run), load_encode(run, outputs=("pooled",))), cache=cache)[0])
        print(f"{run}: R2 {found[-1][0]:.3f}", flush=True)
    return np.stack(found)


def references(run: Path, probe: Probe, seeds: list[int], cache: Path) -> dict[str, Float[ndarray, "s b"]]:
    """The same for random weights of the run's backbone and for pooled pixels."""
    config = random_config(load_encode(run, outputs=("pooled",)).card)
    random = [embedder(f"random {s}", random_encode(config, s, outputs=("pooled",))) for s in seeds]
    pixels = pixels_embedder()
    return {
        f"random {config.backbone}": np.stack([probe(one, cache=cache)[0] for one in random]),
        pixels.name: probe(pixels, cache=cache)[0][None],
    }


def row_of(arm: Arm, args: argparse.Namespace, probe: Probe, fixed: dict[str, Float[ndarray, "s b"]]) -> dict[str, Any]:
    """One line of a table; `r2` of each seed under `seeds`."""
    r2 = scores_of([arm.run(args.out, seed) for seed in args.seeds], probe, args.out / "features")
    visited = [cells_visited(open_store(arm.folder(args.out, seed) / "store")) for seed in args.seeds]
    frames = [open_store(arm.folder(args.out, seed) / "store").num_frames for seed in args.seeds]
    return {
        "agent": arm.agent,
        "rounds": arm.rounds,
        "frames": frames,
        "cells": {name: [found[name] for found in visited] for name in visited[0]},
        "r2": interval(r2),
        "seeds": r2[:, 0].tolist(),
        "minus": {name: interval(all_pairs(r2, other)) for name, other in fixed.items()},
        "_scores": r2,
    }


def difference(loop: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The loop minus another arm, seed by seed, on the same resamples of episodes."""
    paired = loop["_scores"] - other["_scores"]
    return {"agent": other["agent"], "difference": interval(paired), "seeds": paired[:, 0].tolist()}


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", default=["random", "pink", "count", "rnd"])
    parser.add_argument("--frames", type=int, default=10_000, help="of each agent, and of each round of the loop")
    parser.add_argument("--steps", type=int, default=240, help="of training on them, and of each round of the loop")
    parser.add_argument("--long-agent", default="random", help="collects --long-frames as well, once, same steps")
    parser.add_argument("--long-frames", type=int, default=50_000, help="0: leave it out")
    parser.add_argument("--rounds", type=int, default=3, help="of the loop")
    parser.add_argument("--against", nargs="+", default=["random", "rnd"], help="collect what the loop does, at once")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluation-episodes", type=int, default=60, help="by noisy_expert, and as many by random")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--config", type=Path, default=Path("configs/simclr_resnet18_push.yaml"))
    parser.add_argument("--at-a-time", type=int, default=1, help="runs beside each other")
    parser.add_argument("--out", type=Path, default=Path("runs/explore"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    return parser.parse_args()


def main() -> None:
    """Collect and train what is missing, then measure."""
    args = options()
    single = [Arm(agent, args.frames, args.steps) for agent in args.agents]
    in_all = (args.frames * args.rounds, args.steps * args.rounds)
    against = [Arm(agent, *in_all) for agent in args.against]
    loop = Arm("novelty", *in_all, args.rounds)
    long = Arm(args.long_agent, args.long_frames, args.steps)
    planned = [(arm, seed) for arm in single + against for seed in args.seeds]
    planned += [(long, args.seeds[0])] if args.long_frames else []

    both = {agent: {"episodes": args.evaluation_episodes} for agent in ("noisy_expert", "random")}
    held_out = gather(args.out / "evaluation", both, seed=EVALUATION_SEED, image_size=args.image_size)
    jobs = {}
    for arm, seed in planned:
        folder = arm.folder(args.out, seed)
        store = gather(folder, {arm.agent: {"frames": arm.frames}}, seed=seed, image_size=args.image_size)
        jobs[folder] = partial(recipe, args, store, steps=arm.steps, seed=seed)
    train_all(jobs, at_a_time=args.at_a_time)
    for seed in args.seeds:
        explore(loop, seed, args)

    settings = StateSettings(column=ENVIRONMENT, dims=POSE)
    probe = open_probe(open_store(held_out), settings)
    fixed = references(single[0].run(args.out, args.seeds[0]), probe, args.seeds, args.out / "features")
    agents = [row_of(arm, args, probe, fixed) for arm in single]
    if args.long_frames:
        agents.append(row_of(long, argparse.Namespace(**vars(args) | {"seeds": args.seeds[:1]}), probe, fixed))
    rounds = [row_of(arm, args, probe, fixed) for arm in (loop, *against)]
    result = {
        "asked": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "evaluation": {"episodes": open_store(held_out).num_episodes, "frames": len(probe.rows)},
        "references": {name: interval(r2) for name, r2 in fixed.items()},
        "agents": agents,
        "loop": rounds,
        "loop_minus": [difference(rounds[0], other) for other in rounds[1:]],
    }
    for row in agents + rounds:
        del row["_scores"]
    args.docs.mkdir(parents=True, exist_ok=True)
    (args.docs / "exploration.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.docs / "exploration.md").write_text(page(result))
    print(f"wrote {args.docs / 'exploration.md'}")


if __name__ == "__main__":
    main()
