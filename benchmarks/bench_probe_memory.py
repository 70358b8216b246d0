"""Compare the peak memory of a probe with few and with many encoders; features are on disk, so it hardly grows.

    python benchmarks/bench_probe_memory.py [--encoders 2 8] [--scenes 900]

Each block is a process that probes ResNet-10t (random weights, one seed per encoder) on scenes of Push.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

BLOCK = """
import resource, sys, tempfile
from pathlib import Path
from robossl.encoders.encoder import EncoderConfig
from robossl.encoders.inference import random_encoder
from robossl.probes.prepare import prepare
from robossl.probes.run import probe
from robossl.probes.settings import ProbeSettings
from robossl.probes.sources import open_frames
from robossl.measure.subjects.encoders import from_encode

number, scenes = int(sys.argv[1]), int(sys.argv[2])
config = EncoderConfig(backbone="resnet10t", input_hw=(64, 64))
encoders = [random_encoder(config, seed) for seed in range(number)]
each = [from_encode(encode, encode.card.name, kind="reference", outputs=("pooled", "dense")) for encode in encoders]
frames = open_frames("env:robossl/Push-v0", num_scenes=scenes, image_size=64)
settings = ProbeSettings(n_reference=scenes - 300, n_evaluation=300, levels=(3,), num_resamples=200, mlp=False)
with tempfile.TemporaryDirectory() as cache:
    factors = ("brightness", "rot90", "hflip")
    prepared = prepare(frames, profile=None, factors=factors, cache=Path(cache), settings=settings)
    probe(each[0], dict(enumerate(each[1:])), prepared, cache=Path(cache), limit_bytes=10**10)
weights = sum(weight.nbytes for weight in encoders[0].encoder.parameters())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, weights / 2**20)
"""


def peak_mib(encoders: int, scenes: int) -> tuple[float, float]:
    """Return the peak of a whole probe and the size of one encoder's weights."""
    line = [sys.executable, "-c", BLOCK, str(encoders), str(scenes)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    peak, weights = map(float, done.stdout.splitlines()[-1].split())
    return peak, weights


def main() -> None:
    """Print the ratio of the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", type=int, nargs=2, default=[2, 8])
    parser.add_argument("--scenes", type=int, default=900)
    args = parser.parse_args()
    few, many = args.encoders
    (less, weights), (more, _) = (peak_mib(number, args.scenes) for number in (few, many))
    print(
        f"peak with {many} encoders / with {few}: {more / less:.2f} ({more:.0f} and {less:.0f} MiB); "
        f"{(more - less) / (many - few):.1f} MiB per further encoder, of which its weights are {weights:.1f}"
    )


if __name__ == "__main__":
    main()
