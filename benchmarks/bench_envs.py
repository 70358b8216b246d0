"""Measure steps with rendering per second on one core: our environments and gym-pusht, alternating.

    python benchmarks/bench_envs.py [--pusht PYTHON]        ROBOSSL_PUSHT_PYTHON=PYTHON make bench

gym-pusht needs OpenCV with display libraries, so it has its own environment (`pip install gym-pusht
opencv-python-headless`). `--pusht` names its interpreter; without it gym-pusht is skipped. Each block is a process with
one thread. Medians are printed, by the clock and by CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict

BLOCK = """
import json, sys, time
import gymnasium, numpy as np
module, env_id, settings, seconds = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
__import__(module)
env = gymnasium.make(env_id, render_mode="rgb_array", **settings)
env.action_space.seed(0)
env.reset(seed=0)
env.render()
steps, began, cpu = 0, time.perf_counter(), time.process_time()
while time.perf_counter() - began < seconds:
    *_, ended, cut, _ = env.step(env.action_space.sample())
    env.render()
    if ended or cut:
        env.reset()
    steps += 1
print(json.dumps([steps / (time.perf_counter() - began), steps / (time.process_time() - cpu)]))
"""
OURS = ("robossl/Push-v0", "robossl/Reach-v0", "robossl/Sort-v0", "robossl/Choose-v0")
PUSHT = "gym_pusht/PushT-v0"


def measure(python: str, env_id: str, size: int, seconds: float) -> list[float]:
    """Return steps per second by the clock and by CPU time."""
    module, settings = "robossl_envs", {"image_size": size}
    if env_id == PUSHT:
        module, settings = "gym_pusht", {"visualization_width": size, "visualization_height": size}
    line = [python, "-c", BLOCK, module, env_id, json.dumps(settings), str(seconds)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print one line per environment and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("ROBOSSL_PUSHT_PYTHON")
    parser.add_argument("--pusht", metavar="PYTHON", default=default, help="an interpreter with gym-pusht")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    jobs = {(env_id, size): sys.executable for size in (96, 224) for env_id in OURS}
    if args.pusht:
        jobs |= {(PUSHT, size): args.pusht for size in (96, 224)}
    rates: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for _ in range(args.rounds):
        for (env_id, size), python in jobs.items():
            rates[env_id, size].append(measure(python, env_id, size, args.seconds))
    for (env_id, size), each in rates.items():
        clock, cpu = (statistics.median(column) for column in zip(*each, strict=True))
        line = f"{env_id} at {size} px: {clock:.0f} steps/s by the clock, {cpu:.0f} by CPU time"
        if args.pusht and env_id != PUSHT:
            ratios = [a[1] / b[1] for a, b in zip(each, rates[PUSHT, size], strict=True)]
            line += f", {statistics.median(ratios):.1f} x gym-pusht"
        print(line)
    if not args.pusht:
        print("gym-pusht: skipped, no --pusht")


if __name__ == "__main__":
    main()
