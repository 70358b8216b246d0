"""Serve exported models, encode a few frames of a video, and compare with onnxruntime in this process.

python examples/serve_and_ask.py MODELS VIDEO
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from numpy import ndarray
from robossl_client.client import EncoderClient

from robossl import load_encoder

NUM_FRAMES = 20


@contextmanager
def served(models: Path) -> Iterator[str]:
    """Start `robossl serve` on a free port, yield its host:port, and stop it with SIGTERM."""
    command = [sys.executable, "-m", "robossl", "serve", str(models), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(f"  server: {line}", end="")
                if found := re.search(r"serving on (\S+) ", line):
                    yield found[1]
                    return
            sys.exit("the server did not start")
        finally:
            process.terminate()
            process.wait(timeout=30)


def frames_of(video: Path) -> ndarray:
    """Read the first frames of a video, RGB (n, h, w, 3)."""
    with av.open(str(video)) as opened:
        decoded = (frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0))
        return np.stack([frame for frame, _ in zip(decoded, range(NUM_FRAMES), strict=False)])


def main() -> None:
    """Encode one frame after another, like a control loop."""
    models, video = map(Path, sys.argv[1:])
    frames = frames_of(video)
    with served(models) as target, EncoderClient(target, robot="quickstart", deadline_ms=10_000) as client:
        card, rows, round_trips_ms = client.card, [], []
        for frame in frames:
            reply = client.encode(frame[None])
            rows.append(reply.features["pooled"])
            round_trips_ms.append(1e3 * reply.age_s)
    got, wanted = np.concatenate(rows), load_encoder(models / card.name)(frames)["pooled"]
    assert card.parity is not None
    difference = np.abs(got - wanted).max() / np.abs(wanted).max()
    allowed = card.parity.max_relative_difference
    print(
        f"{len(frames)} frames of {video.name} to {card.name} version {card.version}: "
        f"{np.median(round_trips_ms):.1f} ms a round trip, {reply.infer_us / 1e3:.1f} of it the encoder\n"
        f"largest difference to onnxruntime {difference:.0e} of the features' magnitude; the card allows {allowed:.0e}"
    )
    if difference > allowed:
        sys.exit("the served embeddings differ from onnxruntime's")


if __name__ == "__main__":
    main()
