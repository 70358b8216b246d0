"""Draw a contact sheet per environment: one image that shows every factor at five strengths.

python -m robossl_envs.sheet docs/figures
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from robossl.common.arguments import call
from robossl_envs.factors import FACTORS, STRENGTHS

ENVIRONMENTS = ("robossl/Push-v0", "robossl/Reach-v0", "robossl/Sort-v0", "robossl/Choose-v0")
SIZE, GAP, MARGIN = 80, 4, 16  # pixels: side of a picture, gap between pictures, height of a line of text
STEPS = 4  # steps of the expert before the picture, so that the factor `latency` has a visible effect


def render_factor(env: gymnasium.Env, factor: str, strength: int, *, seed: int) -> UInt8[ndarray, "h w 3"]:
    """Let the expert play a few steps with a nuisance factor at a strength; return the last picture."""
    env.reset(seed=seed, options={"strengths": {factor: strength}})
    for _ in range(STEPS):
        env.step(env.unwrapped.expert())  # type: ignore[attr-defined]
    found: UInt8[ndarray, "h w 3"] = np.asarray(env.render())
    return found


def draw_sheet(env_id: str, *, seed: int = 3) -> Image.Image:
    """Draw the nuisance factors in two columns, each with six pictures: the unchanged scene, then five strengths."""
    env = gymnasium.make(env_id, render_mode="rgb_array", image_size=SIZE)
    factors = env.get_wrapper_attr("factors")
    rows = -(-len(factors) // 2)
    block = (STRENGTHS + 1) * (SIZE + GAP) + 3 * GAP
    paper = Image.new("RGB", (2 * block, rows * (SIZE + GAP + MARGIN)), "white")
    pen = ImageDraw.Draw(paper)
    for number, name in enumerate(factors):
        left, top = (number // rows) * block, (number % rows) * (SIZE + GAP + MARGIN)
        pen.text((left + 2, top + 2), f"{name}: {FACTORS[name].about}", fill="black")
        for strength in range(STRENGTHS + 1):
            tile = Image.fromarray(render_factor(env, name, strength, seed=seed))
            paper.paste(tile, (left + strength * (SIZE + GAP), top + MARGIN))
    env.close()
    return paper


def main(folder: Path = Path(".")) -> None:
    """Write one contact sheet (PNG) per environment.

    Args:
        folder: the output folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for env_id in ENVIRONMENTS:
        path = folder / f"factors_{env_id.split('/')[1].split('-')[0].lower()}.png"
        draw_sheet(env_id).save(path, optimize=True)
        print(f"wrote {path}")


if __name__ == "__main__":
    call(main, sys.argv[1:], prog="python -m robossl_envs.sheet")
