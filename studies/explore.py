"""Compare exploring agents, and the loop of exploring and learning: `make explore`; resumes after a kill.

    python studies/explore.py [--agents random pink count rnd] [--frames 10000] [--seeds 0 1 2] [--steps 240] ...

For each agent: collect frames, ingest them, pretrain with the same configuration and the same number of steps. The
coverage counts all frames of an agent; ridge regression reads the object's pose off each encoder on episodes that no
encoder saw. The loop (rounds of exploring by novelty and learning) is compared with as many frames collected at once
and as many steps. Scores are kept in studies/results/exploration.json, and a measured arm is not run again. When
every arm is measured, the script writes docs/exploration.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from exploration_page import page
from jaxtyping import Float, Int
from numpy import ndarray
from robossl_envs.collect import collect
from robossl_envs.explore import explore_loop
from robossl_envs.scene import WORKSPACE
from runs import ScoreFile, train_all

from robossl.common.config import config_hash, load, to_yaml
from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store
from robossl.evaluation.state import StateProbe, StateSettings, interval, open_probe
from robossl.measure.accuracy import all_pairs
from robossl.measure.subjects import Subject, open_subject, pixels_reference
from robossl.measure.subjects.references import PIXELS, random_subject
from robossl.measure.subjects.subject import Backbone
from robossl.training.run_config import RunConfig

ENV, STATE, ENVIRONMENT = "robossl/Push-v0", "state", "observation.environment_state"
POSE = {"r2": (0, 1, 2, 3), "place": (0, 1), "angle": (2, 3)}  # of the environment's state: x, y, sine, cosine
EVALUATION_SEED = 1_000_000  # far from the seeds of the arms and of the loop's rounds
CELLS = 10  # per side
RESAMPLES = 500  # of the evaluation's episodes


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to collect frames; an arm with several rounds is the loop."""

    agent: str
    frames: int  # of all rounds
    steps: int  # of all rounds
    rounds: int = 1

    def folder(self, out: Path, seed: int) -> Path:
        """Return the folder of one seed."""
        name = f"{self.agent}_{self.frames}_frames_{self.steps}_steps_{self.rounds}_rounds_seed{seed}"
        return out / name

    def run(self, out: Path, seed: int) -> Path:
        """Return the run of the last round."""
        last = [f"round_{self.rounds - 1}"] if self.rounds > 1 else []
        return self.folder(out, seed).joinpath(*last, "run")


def gather(folder: Path, collections: dict[str, dict[str, Any]], *, seed: int, image_size: int) -> Path:
    """Collect with each agent, without a repeated layout; ingest everything into one store and return its path."""
    for number, (agent, amount) in enumerate(collections.items()):
        own_seed = seed + number * EVALUATION_SEED  # seed and episode number decide the layout
        collect(env=ENV, agent=agent, out=folder / agent, seed=own_seed, image_size=image_size, **amount)
    sources = [folder / agent for agent in collections]
    ingest(sources, out=folder / "store", short_side=image_size, licence="CC0-1.0")
    return folder / "store"


def recipe(args: argparse.Namespace, store: Path, *, steps: int, seed: int) -> RunConfig:
    """Build the configuration of one run, without logs."""
    base = load(args.config, RunConfig)
    return replace(
        base,
        data=replace(base.data, store=store, split=None),
        optim=replace(base.optim, warmup_steps=min(base.optim.warmup_steps, steps // 10)),
        train=replace(base.train, steps=steps, checkpoint_every=max(1, steps // 4), sinks=()),
        seed=seed,
    )


def run_loop(arm: Arm, seed: int, args: argparse.Namespace) -> None:
    """Run one seed of the loop."""
    folder = arm.folder(args.out, seed)
    folder.mkdir(parents=True, exist_ok=True)
    config = args.out / f"loop_seed{seed}.yaml"
    config.write_text(to_yaml(recipe(args, folder / "store", steps=args.steps, seed=seed)))
    amount = {"rounds": arm.rounds, "frames": arm.frames // arm.rounds}
    explore_loop(config, env=ENV, out=folder, agent=arm.agent, image_size=args.image_size, **amount)


def cells_visited(store: Store) -> dict[str, int]:
    """Count the visited cells of a 10 x 10 grid over the table: of the hand, of the block, and of both together."""
    rows = np.arange(store.num_frames)
    hand, block = (cell_of(store.column(name, rows)[:, :2]) for name in (STATE, ENVIRONMENT))
    both = hand * CELLS**2 + block
    return {"hand": len(np.unique(hand)), "block": len(np.unique(block)), "both": len(np.unique(both))}


def cell_of(places: Float[ndarray, "n 2"]) -> Int[ndarray, " n"]:
    """Return the cell of each place; places beyond the rails count as the outermost cells."""
    at = np.clip(np.floor((places + WORKSPACE) / (2 * WORKSPACE) * CELLS), 0, CELLS - 1).astype(np.int64)
    cells: Int[ndarray, " n"] = at[:, 0] * CELLS + at[:, 1]
    return cells


def measure(arm: Arm, seed: int, args: argparse.Namespace, probes: dict[str, StateProbe]) -> dict[str, Any]:
    """Collect, train and score one seed of an arm."""
    folder, run = arm.folder(args.out, seed), arm.run(args.out, seed)
    if arm.rounds > 1:
        run_loop(arm, seed, args)
    else:
        store = gather(folder, {arm.agent: {"frames": arm.frames}}, seed=seed, image_size=args.image_size)
        train_all({folder: partial(recipe, args, store, steps=arm.steps, seed=seed)}, at_a_time=1)
    store = open_store(folder / "store")
    figures = r2_of(open_subject(str(run), outputs=("pooled",)), probes, cache=args.out / "features")
    print(f"{folder.name}: " + ", ".join(f"{name} {r2[0]:.3f}" for name, r2 in figures.items()), flush=True)
    return {"frames": store.num_frames, "cells": cells_visited(store)} | figures


def r2_of(subject: Subject, probes: dict[str, StateProbe], *, cache: Path) -> dict[str, list[float]]:
    """Return R2 of each probe on every resample of its episodes; the first entry is the full set of episodes."""
    return {name: probe(subject, cache=cache)[0].round(4).tolist() for name, probe in probes.items()}


def references(args: argparse.Namespace) -> dict[str, Subject]:
    """Return random weights of the recipe's backbone, one encoder per seed, and pooled pixels."""
    config = load(args.config, RunConfig).encoder
    backbone = Backbone(config.backbone, "card")
    random = {f"random {config.backbone} {s}": random_subject(config, backbone, seed=s) for s in args.seeds}
    return random | {f"{PIXELS} 0": pixels_reference()}


def result_of(planned: list[tuple[Arm, int]], args: argparse.Namespace, results: ScoreFile) -> dict[str, Any]:
    """Summarise the scores of all arms and seeds for the page."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for name in references(args):
        measured.setdefault(name.rpartition(" ")[0], []).append(results[name])
    fixed = {name: np.array([each["r2"] for each in figures]) for name, figures in measured.items()}
    seeds_of: dict[Arm, list[int]] = {}
    for arm, seed in planned:
        seeds_of.setdefault(arm, []).append(seed)
    scores = {arm: np.array([results[key_of(arm, seed)]["r2"] for seed in seeds]) for arm, seeds in seeds_of.items()}

    def row(arm: Arm) -> dict[str, Any]:
        figures = [results[key_of(arm, seed)] for seed in seeds_of[arm]]
        return {
            "agent": arm.agent,
            "rounds": arm.rounds,
            "frames": [each["frames"] for each in figures],
            "cells": {name: [each["cells"][name] for each in figures] for name in figures[0]["cells"]},
            "r2": interval(scores[arm]),
            "parts": parts(figures),
            "seeds": scores[arm][:, 0].tolist(),
            "minus": {name: interval(all_pairs(scores[arm], other)) for name, other in fixed.items()},
        }

    in_all = args.steps * args.rounds
    compared = sorted((arm for arm in seeds_of if arm.steps == in_all), key=lambda arm: -arm.rounds)
    loop, *others = compared
    return {
        "references": {name: {"r2": interval(r2), "parts": parts(measured[name])} for name, r2 in fixed.items()},
        "agents": [row(arm) for arm in seeds_of if arm.steps != in_all],
        "loop": [row(arm) for arm in compared],
        "loop_minus": [difference(other.agent, scores[loop] - scores[other]) for other in others],
    }


def parts(figures: list[dict[str, Any]]) -> dict[str, float]:
    """Return R2 of the place and of the angle; means over seeds."""
    return {name: float(np.mean([each[name][0] for each in figures])) for name in ("place", "angle")}


def difference(agent: str, paired: Float[ndarray, "s b"]) -> dict[str, Any]:
    """Return the loop minus another arm by seed, on the same resamples of episodes."""
    return {"agent": agent, "difference": interval(paired), "seeds": paired[:, 0].tolist()}


def key_of(arm: Arm, seed: int) -> str:
    """Return the name of an arm's seed in the scores."""
    return arm.folder(Path(), seed).name


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", default=["random", "pink", "count", "rnd"])
    parser.add_argument("--frames", type=int, default=10_000, help="of each agent and of each round of the loop")
    parser.add_argument("--steps", type=int, default=240, help="training steps per agent and per round of the loop")
    parser.add_argument("--long-agent", default="random", help="also collects --long-frames, one seed, same steps")
    parser.add_argument("--long-frames", type=int, default=50_000, help="0: skip")
    parser.add_argument("--rounds", type=int, default=3, help="of the loop")
    parser.add_argument(
        "--against",
        nargs="+",
        default=["random", "rnd"],
        help="collect the loop's frames at once",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluation-episodes", type=int, default=120, help="by noisy_expert and by random each")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--config", type=Path, default=Path("configs/simclr_resnet18_push.yaml"))
    parser.add_argument("--out", type=Path, default=Path("runs/explore"))
    parser.add_argument("--results", type=Path, default=Path("studies/results/exploration.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    return parser.parse_args()


def main() -> None:
    """Measure the missing arms, then write the page."""
    args = options()
    in_all = (args.frames * args.rounds, args.steps * args.rounds)
    arms = [Arm(agent, args.frames, args.steps) for agent in args.agents]
    arms += [Arm("novelty", *in_all, args.rounds), *(Arm(agent, *in_all) for agent in args.against)]
    planned = [(arm, seed) for arm in arms for seed in args.seeds]
    long = Arm(args.long_agent, args.long_frames, args.steps)
    planned += [(long, args.seeds[0])] if args.long_frames else []

    both = {agent: {"episodes": args.evaluation_episodes} for agent in ("noisy_expert", "random")}
    held_out = open_store(gather(args.out / "evaluation", both, seed=EVALUATION_SEED, image_size=args.image_size))
    settings = StateSettings(column=ENVIRONMENT, frames_per_episode=12, bootstrap=RESAMPLES)
    probes = {name: open_probe(held_out, replace(settings, dims=dims, bootstrap=0)) for name, dims in POSE.items()}
    # Only the whole pose has an interval in the table.
    probes["r2"] = open_probe(held_out, replace(settings, dims=POSE["r2"]))
    num_frames = len(probes["r2"].rows)
    evaluation = {"episodes": held_out.num_episodes, "frames": num_frames, "content_hash": held_out.content_hash}
    trained_by = config_hash(recipe(args, Path("store"), steps=args.steps, seed=0))
    about = {"recipe": trained_by, "image_size": args.image_size, "steps": args.steps, "evaluation": evaluation}
    results = ScoreFile(args.results, about)
    for name, subject in references(args).items():
        if name not in results.measured:
            results[name] = r2_of(subject, probes, cache=args.out / "features")
    for number, (arm, seed) in enumerate(planned, start=1):
        if key_of(arm, seed) not in results.measured:
            print(f"{number}/{len(planned)}: {key_of(arm, seed)}", flush=True)
            results[key_of(arm, seed)] = measure(arm, seed, args, probes)
    asked = {"steps": args.steps, "rounds": args.rounds, "frames": args.frames, "config": str(args.config)}
    text = page({"asked": asked, "evaluation": evaluation, **result_of(planned, args, results)})
    (args.docs / "exploration.md").write_text(text)
    print(f"wrote {args.docs / 'exploration.md'}")


if __name__ == "__main__":
    main()
