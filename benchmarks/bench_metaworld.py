"""Compare MetaWorld's rendering in robossl_envs with MuJoCo's own settings on the same scene, alternating.

    python benchmarks/bench_metaworld.py [--metaworld PYTHON]        ROBOSSL_METAWORLD_PYTHON=PYTHON make bench

MetaWorld pins its simulator, so it has its own environment (`pip install -e '.[metaworld]'`). `--metaworld` names its
interpreter; without it nothing is measured. MUJOCO_GL is egl unless it is set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

BLOCK = """
import json, statistics, sys, time
import mujoco
from robossl_envs.metaworld import MetaWorld

size, pictures, rounds = map(int, sys.argv[1:])
env = MetaWorld("push-v3", image_size=size, render_mode="rgb_array")
env.reset(seed=0)
plain = mujoco.Renderer(MetaWorld("push-v3")._env.model, size, size)  # the settings are part of the model

def draw_plain():
    plain.update_scene(env._env.data, camera="corner2")
    plain.render()

def timed(draw):
    seconds = []
    for number in range(pictures):
        env.step(env.expert())
        began = time.perf_counter()
        draw()
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)

env.render(), draw_plain()
print(json.dumps([[timed(env.render), timed(draw_plain)] for _ in range(rounds)]))
"""


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("ROBOSSL_METAWORLD_PYTHON")
    parser.add_argument("--metaworld", metavar="PYTHON", default=default, help="an interpreter with metaworld")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not args.metaworld:
        print("MetaWorld: skipped, no --metaworld")
        return
    root = Path(__file__).parents[1]
    paths = {"PYTHONPATH": f"{root}:{root / 'envs'}", "PYTHONWARNINGS": "ignore"}
    environment = {"MUJOCO_GL": "egl"} | os.environ | paths
    for size in (96, 224):
        line = [args.metaworld, "-c", BLOCK, str(size), str(args.pictures), str(args.rounds)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
        ours, plain = zip(*json.loads(done.stdout.splitlines()[-1]), strict=True)
        ratios = ", ".join(f"{slow / fast:.1f}" for fast, slow in zip(ours, plain, strict=True))
        print(
            f"{size} px: {min(ours):.1f} ms per picture, {min(plain):.1f} with MuJoCo's; ratios {ratios}",
            flush=True,
        )


if __name__ == "__main__":
    main()
