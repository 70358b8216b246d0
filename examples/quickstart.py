"""Quickstart: from robot clips and collected frames to an encoder, a probe, an ONNX model and reports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "quickstart"
# On two shared cores, two threads mostly wait for each other and are no faster than one.
ENVIRONMENT = {"OMP_NUM_THREADS": "1"} | os.environ
STEPS = (
    (
        "ingest the shipped clips into a store",
        "ingest tests/data/droid --out quickstart/store --short-side 96",
    ),
    (
        "explore: play an environment and record its frames",
        "collect --env robossl/Push-v0 --agent pink --frames 2000 --max-steps 100 --out quickstart/frames",
    ),
    (
        "add those frames to the store",
        "ingest quickstart/frames --out quickstart/store --short-side 96 --licence CC0-1.0",
    ),
    ("look at it", "info quickstart/store"),
    ("pretrain SimCLR on both", "pretrain configs/quickstart.yaml --out quickstart/run"),
    (
        "probe it: can a head still read where the block lies when light, colours and scene change?",
        "probe run quickstart/run --data env:robossl/Push-v0 --scenes 360 --image-size 64 --quick --frames 60 "
        "--profile pose-estimation --factors brightness hue light_direction distractors rotation hflip "
        "--cache quickstart/cache --out quickstart/probe",
    ),
    (
        "export it to ONNX and check parity",
        "export quickstart/run --out quickstart/models --name quickstart",
    ),
    (
        "embed frames with onnxruntime",
        "embed quickstart/models/quickstart/1 quickstart/store --split val --out quickstart/embeddings.npz",
    ),
    ("write a report", "report quickstart/run --store quickstart/store --out quickstart/report.html"),
)


def main() -> None:
    """Run every step as a person would type it, and name the files to open."""
    shutil.rmtree(OUT, ignore_errors=True)
    began = time.monotonic()
    for number, (what, arguments) in enumerate(STEPS, start=1):
        print(f"\n[{number}/{len(STEPS)}] {what}\n$ robossl {arguments}", flush=True)
        done = subprocess.run([sys.executable, "-m", "robossl", *arguments.split()], cwd=ROOT, env=ENVIRONMENT)
        if done.returncode:
            sys.exit(done.returncode)
    clip = sorted((ROOT / "tests/data/droid").rglob("*.mp4"))[0]
    print("\n[and] serve it and ask like a control loop\n$ robossl serve quickstart/models", flush=True)
    asked = [sys.executable, ROOT / "examples/serve_and_ask.py", OUT / "models", clip]
    if code := subprocess.run(asked, cwd=ROOT).returncode:
        sys.exit(code)
    print(f"\nDone in {time.monotonic() - began:.0f} s. Open:")
    for path, what in (
        ("probe/report.html", "probe: what a head reads from changed frames, beside pixels and random weights"),
        ("report.html", "report: loss, health, nearest neighbours"),
        ("run", "the run: config.yaml, metrics.jsonl, checkpoints, encoder"),
        ("models/quickstart", "the ONNX model and its card"),
        ("embeddings.npz", "embeddings of the validation frames"),
    ):
        print(f"  {(OUT / path).relative_to(ROOT)}  {what}")


if __name__ == "__main__":
    main()
