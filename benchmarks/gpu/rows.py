"""What the parts share: rows of figures in a file, the table, sizes in full and in small, synthetic frames."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("part", "what", "value", "unit", "note")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of all parts."""

    device: str
    vit: str
    resnet: str
    size: int  # side of the views and of the exported model's frames, in pixels
    knn_size: int
    batch: int
    resume_batch: int
    steps: int  # of the run that is killed and resumed
    frames: int  # in the synthetic store
    seconds: float  # of each measurement


FULL = Sizes("cuda", "vit_small_patch16_224", "resnet18", 224, 128, 256, 64, 40, 1024, 10.0)
DRY = Sizes("cpu", "test_vit", "test_resnet", 32, 32, 8, 8, 6, 24, 0.3)


@dataclass(frozen=True, slots=True)
class Part:
    """What a part gets from the command line."""

    out: Path
    sizes: Sizes
    store: Path  # synthetic frames
    imagenette: Path | None
    seconds: float  # that the part may take
    is_dry: bool

    @property
    def runs(self) -> Path:
        """Folder for runs, exports and whatever need not be kept."""
        return self.out / "work"


def read_part() -> tuple[str, Part]:
    """Read the command line of a part: its name and what it gets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--imagenette", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    sizes = DRY if args.dry else FULL
    store = args.out / "work" / "store"
    return args.name, Part(args.out, sizes, store, args.imagenette, args.seconds, args.dry)


def add_row(out: Path, part: str, what: str, value: float | None, unit: str = "", note: str = "") -> None:
    """Add a figure to figures.jsonl at once, so that a part that is stopped keeps what it has measured."""
    row = dict(zip(COLUMNS, (part, what, value, unit, note), strict=True)) | {"time": round(time.time(), 1)}
    out.mkdir(parents=True, exist_ok=True)
    with (out / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(f"  {what}: {_text(value)} {unit} {note}".rstrip(), flush=True)


def markdown(out: Path) -> str:
    """Return all figures as a markdown table."""
    path = out / "figures.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    lines = [[row["part"], row["what"], f"{_text(row['value'])} {row['unit']}".strip(), row["note"]] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [["part", "what", "figure", "note"], ["---"] * 4, *lines])


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def make_store(part: Part) -> None:
    """Ingest synthetic frames with the statistics of photographs, a little larger than the views, of two kinds."""
    from PIL import Image

    from robossl.data.ingest import ingest
    from robossl.exporting.parity import natural_frames

    side = part.sizes.size + 32
    few = natural_frames(min(64, part.sizes.frames), (side, side), seed=0)
    rng = np.random.default_rng(0)
    for number in range(part.sizes.frames):
        # Mirrored and rolled copies: making a new frame takes longer than training on it.
        frame = np.roll(few[number % len(few)], tuple(rng.integers(0, side, 2)), axis=(0, 1))
        folder = part.runs / "frames" / ("train" if number % 8 else "val") / ("a", "b")[number // 8 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame[:, :: 1 - 2 * (number % 2)]).save(folder / f"{number:05d}.jpg", quality=90)
    ingest(part.runs / "frames", out=part.store, short_side=side)
