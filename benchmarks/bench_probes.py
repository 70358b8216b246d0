"""Time the statistics of a probe: everything except the encoder's forwards and the rendering of views.

    python benchmarks/bench_probes.py                           # 20 factors x 5 strengths, d = 512: target 180 s
    python benchmarks/bench_probes.py --factors 2 --strengths 2 # a part, and an estimate of the whole

Features are random with structure (a linear view, clusters). There is one label, heads fitted on clean and augmented
frames, 1,000 resamples, 99 shuffles, and linear and MLP decodings, absolute and relative.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robossl.measure.figures import Draws, draw
from robossl.probes.decoding import FramePairs, decode
from robossl.probes.equivariance import equivariance
from robossl.probes.frames import Label
from robossl.probes.health import health
from robossl.probes.invariance import fit_space, invariance
from robossl.probes.label_maps import ViewLabel
from robossl.probes.retention import fit_augmented, fit_task, retention
from robossl.probes.retrieval import retrieval, spread_gallery

TARGET_SECONDS = 180
VIEWS = 100  # of a whole probe


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    def __call__(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run a stage and add its time."""
        start, cpu_start = time.perf_counter(), time.process_time()
        found = work()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        self.cpu_seconds[stage] = self.cpu_seconds.get(stage, 0.0) + time.process_time() - cpu_start
        return found

    def total(self) -> tuple[float, float]:
        """Return seconds and CPU seconds of all stages; stages in brackets are part of another."""
        counted = [stage for stage in self.seconds if not stage.startswith("(")]
        return sum(self.seconds[each] for each in counted), sum(self.cpu_seconds[each] for each in counted)


def main() -> None:
    """Time each stage per encoder or per view."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("factors", 20), ("strengths", 5), ("dim", 512), ("frames", 500), ("reference", 2000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    rng, clock = np.random.default_rng(0), Stopwatch()
    clusters = [np.arange(n) // 5 for n in (asked.reference, asked.frames)]
    mix = rng.normal(size=(asked.dim, asked.dim)) / np.sqrt(np.arange(1, asked.dim + 1))[:, None]
    content = [rng.normal(size=(len(each), asked.dim)) for each in clusters]
    features = [each @ mix for each in content]
    labels = [Label("point", each[:, :2]) for each in content]
    draws: Draws = draw(clusters[1], num_resamples=1000)
    space = clock("whitening", lambda: fit_space(features[0]))
    gallery = spread_gallery(clusters[1])
    clock("health", lambda: health(features[0], features[1], features[1] + 1e-4, space, draws, gallery))
    task = clock(
        "clean head",
        lambda: fit_task(
            "point", *labels, reference=features[0], reference_clusters=clusters[0], clean=features[1], draws=draws
        ),
    )
    once = clock.total()
    views = asked.factors * asked.strengths
    for view in range(views):
        num_classes = (0, 2)[view % 2]
        drawn = [rng.integers(2, size=(len(each), 1)).astype(float) for each in content]
        moved = [(each + t + 0.3 * rng.normal(size=each.shape)) @ mix for each, t in zip(content, drawn, strict=True)]
        pairs = [FramePairs(*each) for each in zip(features, moved, drawn, strict=True)]
        clock("invariance", lambda moved=moved: invariance(features[1], moved[1], space, draws))
        clock("retrieval", lambda moved=moved: retrieval(features[1], moved[1], space, draws, gallery))
        for mlp in (False, True):
            clock(
                "decoding with MLP" if mlp else "(decoding, linear alone)",
                lambda pairs=pairs, num_classes=num_classes, mlp=mlp: decode(
                    *pairs, draws, factor="f", level=1, num_classes=num_classes, mlp=mlp
                ),
            )
        clock("equivariance", lambda pairs=pairs: equivariance(*pairs, draws))
        augmented = clock(
            "augmented head",
            lambda moved=moved: fit_augmented(
                task,
                labels[0],
                ViewLabel(labels[0]),
                reference=features[0],
                moved_reference=moved[0],
                reference_clusters=clusters[0],
            ),
        )
        clock(
            "retention",
            lambda moved=moved, augmented=augmented: retention(
                task, moved[1], ViewLabel(labels[1]), draws, factor="f", level=1, augmented=augmented
            ),
        )
    whole, cpu = (first + (total - first) * VIEWS / views for first, total in zip(once, clock.total(), strict=True))
    for stage, seconds in clock.seconds.items():
        print(f"{stage:28s}{seconds:8.2f} s, {clock.cpu_seconds[stage]:8.2f} s of CPU")
    print(f"{views} views, d = {asked.dim}, {asked.frames} frames, {asked.reference} reference frames")
    print(f"{VIEWS} views: {whole:.0f} s, {cpu:.0f} s of CPU (target {TARGET_SECONDS} s: {whole / TARGET_SECONDS:.2f})")


if __name__ == "__main__":
    main()
