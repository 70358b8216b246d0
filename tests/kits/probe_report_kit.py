"""Help for the tests of probe reports: reports that look real, made of a few numbers a factor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy import ndarray

from robossl.probes.result import (
    Cell,
    CleanHead,
    Decoding,
    Family,
    Figure,
    Need,
    ProbeData,
    ProbeHealth,
    Readings,
    Report,
    Retention,
    SubjectInfo,
    TaskNeeds,
    Verdict,
    ViewFigures,
    Word,
)

N, CLUSTERS = 500, 60
RESAMPLES = np.random.default_rng(1).multinomial(CLUSTERS, np.full(CLUSTERS, 1 / CLUSTERS), 400).astype(float)
NO_ROOM = Figure(None, None, None, N, CLUSTERS, "a 6-DoF pose is not defined under a horizontal flip")

# family, need of a pose task, grid, how fast invariance falls, how well the change can be decoded
FACTORS: dict[str, tuple[Family, Need, str, tuple[float, ...], float, float]] = {
    "brightness": ("photometric", "INV", "gain", (0.8, 0.6, 0.45, 0.3, 0.2), 0.05, 0.62),
    "gamma": ("photometric", "INV", "gamma", (0.8, 0.65, 0.5, 0.4, 0.3), 0.04, 0.55),
    "contrast": ("photometric", "INV", "share", (0.8, 0.6, 0.45, 0.3, 0.2), 0.05, 0.48),
    "hue": ("photometric", "INV", "turns", (0.02, 0.05, 0.1, 0.2, 0.35), 0.09, 0.71),
    "saturation": ("photometric", "INV", "share", (0.8, 0.5, 0.25, 0.1, 0.0), 0.03, 0.35),
    "white_balance": ("photometric", "INV", "kelvin", (5500.0, 4500.0, 3500.0, 3000.0, 2500.0), 0.06, 0.6),
    "gaussian_noise": ("photometric", "INV", "sd", (0.01, 0.03, 0.06, 0.12, 0.18), 0.16, 0.8),
    "gaussian_blur": ("photometric", "INV", "sigma_share", (0.001, 0.002, 0.004, 0.007, 0.012), 0.13, 0.77),
    "motion_blur": ("photometric", "INV", "length_share", (0.02, 0.04, 0.07, 0.11, 0.16), 0.15, 0.7),
    "jpeg": ("photometric", "INV", "quality", (70.0, 50.0, 35.0, 18.0, 15.0), 0.08, 0.5),
    "shadow": ("photometric", "INV", "depth", (0.2, 0.35, 0.5, 0.6, 0.7), 0.07, 0.3),
    "rotation": ("geometric", "EQUI", "degrees", (3.0, 7.0, 15.0, 30.0, 60.0), 0.02, 0.06),
    "translation": ("geometric", "EQUI", "share", (0.02, 0.04, 0.08, 0.12, 0.16), 0.03, 0.12),
    "scale": ("geometric", "EQUI", "factor", (1.05, 1.15, 1.3, 1.5, 1.7), 0.12, 0.44),
    "hflip": ("geometric", "EQUI", "on", (1.0,), 0.24, 0.5),
    "crop": ("geometric", "EQUI", "area", (0.9, 0.75, 0.6, 0.45, 0.3), 0.1, 0.4),
    "perspective": ("geometric", "EQUI", "jitter", (0.02, 0.05, 0.1, 0.15, 0.2), 0.14, 0.52),
    "background": ("scene", "INV", "alpha", (0.25, 0.5, 0.75, 0.9, 1.0), 0.11, 0.66),
    "distractors": ("scene", "INV", "objects", (1.0, 2.0, 4.0, 6.0, 8.0), 0.09, 0.33),
    "latency": ("temporal", "EQUI", "frames", (1.0, 2.0, 3.0, 5.0, 8.0), 0.025, 0.08),
}


def make_report(
    name: str = "simclr resnet18 droid",
    *,
    seed: int = 0,
    collapsed: bool = False,
    labels: tuple[str, ...] = ("camera",),
    task: bool = True,
    gain: float = 1.0,
    factors: tuple[str, ...] = tuple(FACTORS),
) -> Report:
    """A report of 20 factors at 5 strengths; `gain` makes the encoder more (below 1) or less invariant."""
    rng = np.random.default_rng(seed)
    report = _whole(name, rng, collapsed=collapsed, labels=labels, task=task, gain=gain)
    return report if factors == tuple(FACTORS) else _only(report, factors)


def _whole(
    name: str, rng: np.random.Generator, *, collapsed: bool, labels: tuple[str, ...], task: bool, gain: float
) -> Report:
    readings = _readings(name, rng, gain=gain, labels=labels, collapsed=collapsed)
    references = {
        "pixels": _readings("pixels 16x16", rng, gain=2.2, labels=labels, decoded=0.75),
        "random_init": _readings("random resnet18", rng, gain=1.6, labels=labels, decoded=0.55),
    }
    verdicts = tuple(_verdicts(readings, references, collapsed)) if task else ()
    order: tuple[Word, ...] = ("UNUSABLE", "RISKY", "INCONCLUSIVE", "SAFE IF TRAINED WITH IT", "SAFE")
    return Report(
        created="2026-11-22T13:00:00+00:00",
        encoder=SubjectInfo(
            name, "runs/simclr", "run", "c" * 64, "pooled: mean over the last feature map", 512, "fp32", "to 224x224"
        ),
        data=ProbeData("droid clips", "d" * 64, 1000, N, CLUSTERS, "episode", (180, 320), True, labels),
        settings={"seed": 0, "bootstrap": 1000, "shrinkage": "ledoit-wolf", "quick": False},
        views=tuple(_views()),
        readings=readings,
        references=references,
        task=_task() if task else None,
        verdicts=verdicts,
        word=min((verdict.word for verdict in verdicts), key=order.index, default=None),
    )


def _only(report: Report, factors: tuple[str, ...]) -> Report:
    def some(readings: Readings) -> Readings:
        cells, decodings, retentions = (
            tuple(each for each in rows if each.factor in factors)
            for rows in (readings.cells, readings.decodings, readings.retentions)
        )
        return replace(readings, cells=cells, decodings=decodings, retentions=retentions)

    return replace(
        report,
        views=tuple(each for each in report.views if each.factor in factors),
        verdicts=tuple(each for each in report.verdicts if each.factor in factors),
        readings=some(report.readings),
        references={key: some(each) for key, each in report.references.items()},
    )


def _views() -> Any:
    for factor, (family, _, unit, grid, _, _) in FACTORS.items():
        for level, value in enumerate(grid, start=1):
            psnr = 36.0 - 4.1 * level
            yield ViewFigures(factor, family, level, {unit: value}, psnr, 1 - 0.07 * level)


def _task() -> TaskNeeds:
    needs: dict[str, tuple[Need, ...]] = {factor: (row[1],) * 5 for factor, row in FACTORS.items()}
    needs["crop"] = ("INV", "EQUI", "EQUI", "EQUI", "EQUI")
    needs["saturation"] = ("-",) * 5
    return TaskNeeds("pose-estimation", "e" * 64, False, {factor: 3 for factor in FACTORS}, needs)


def _readings(
    name: str,
    rng: np.random.Generator,
    *,
    gain: float,
    labels: tuple[str, ...],
    collapsed: bool = False,
    decoded: float = 0.0,
) -> Readings:
    cells, decodings, retentions = [], [], []
    gone = Figure(None, None, None, N, CLUSTERS, "the encoder has collapsed")
    for factor, (_, need, _, grid, slope, decodable) in FACTORS.items():
        for level in range(1, len(grid) + 1):
            fall = gain * slope * (level if len(grid) > 1 else 3) ** 1.2
            figure, shares = _shared(1 - fall, rng)
            shares = shares if not (collapsed or decoded) else ()  # references are not compared
            cells.append(Cell(factor, level, "nis_w", gone if collapsed else figure, shares))
            hit = gone if collapsed else _figure(max(0.002, 1 - 0.8 * fall), 0.03)
            cells.append(Cell(factor, level, "r1", hit))
            score = _figure((decoded or decodable) * min(1, 0.5 + level / 6), 0.06)
            for probe, less in (("linear", 0.9), ("mlp", 1.0)):
                scored = gone if collapsed else _figure((score.value or 0) * less, 0.06)
                for protocol in ("abs", "rel"):
                    decodings.append(
                        Decoding(factor, level, protocol, probe, "regression", scored, None, None, (-0.04, 0.05))
                    )
            for label in labels:
                kept = _figure(1 - fall * (0.8 if need == "INV" else 1.5), 0.05)
                left = NO_ROOM if factor == "hflip" else gone if collapsed else kept
                retentions.append(Retention(label, factor, level, "clean", left, 0.62, 0.62 * (left.value or 0)))
    heads = tuple(CleanHead(label, gone if collapsed else _figure(0.62, 0.05)) for label in labels)
    return Readings(name, _health(collapsed), tuple(cells), tuple(decodings), tuple(retentions), clean_heads=heads)


def _shared(value: float, rng: np.random.Generator) -> tuple[Figure, tuple[tuple[float, float], ...]]:
    """A figure that is the sum of one share over that of the other, with the interval of a bootstrap of them."""
    below = rng.uniform(0.8, 1.2, CLUSTERS)
    above = below * (value + 0.1 * rng.standard_normal(CLUSTERS))
    shares = np.stack([above, below], 1).round(5)
    drawn = RESAMPLES @ shares
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    figure = Figure(float(shares[:, 0].sum() / shares[:, 1].sum()), float(low), float(high), N, CLUSTERS)
    return figure, tuple((float(first), float(second)) for first, second in shares)


def _figure(value: float, half: float) -> Figure:
    return Figure(value, value - half, value + half, N, CLUSTERS)


def _health(collapsed: bool) -> ProbeHealth:
    if collapsed:
        return ProbeHealth(1.0, 1.2, 3e-8, 900.0, 1.0, -0.0, None, (1.0,), 0.3, 0.02, ("collapsed",))
    spectrum = np.arange(1, 65) ** -1.1
    values = tuple((spectrum / spectrum.sum()).tolist())
    return ProbeHealth(31.0, 118.4, 0.44, 3e-4, 0.61, -2.9, 1.08, values, 0.999, 1.0, ())


def _verdicts(readings: Readings, references: dict[str, Readings], collapsed: bool) -> Any:
    found = {(cell.factor, cell.level): cell.figure for cell in readings.cells if cell.metric == "nis_w"}
    tables = {
        name: {(cell.factor, cell.level): cell.figure.value for cell in each.cells if cell.metric == "nis_w"}
        for name, each in references.items()
    }
    for factor, (_, need, _, grid, _, decodable) in FACTORS.items():
        needed: Need = "-" if factor == "saturation" else need
        for level in (*range(1, len(grid) + 1), None):
            figure = found[factor, level or min(3, len(grid))]
            beside = {name: table[factor, level or min(3, len(grid))] for name, table in tables.items()}
            word, why = _judged(figure, needed, decodable, collapsed)
            sentence = f"{factor.replace('_', ' ')}: {why}"
            metric = "nis_w" if needed == "INV" else "decoding (mlp)"
            yield Verdict(factor, level, needed, word, metric, figure, beside, sentence)


def _judged(figure: Figure, need: Need, decodable: float, collapsed: bool) -> tuple[Word, str]:
    if collapsed:
        return "UNUSABLE", "the features of all frames are the same, so no invariance of theirs means anything"
    if need == "-":
        return "SAFE", "the task does not ask"
    if need == "EQUI":
        if decodable < 0.2:
            return "RISKY", f"over-invariant, the change is decoded at {decodable:.2f} where pixels reach .75"
        if decodable > 0.5:
            return "SAFE", "the change is decoded, and the head follows it"
        return "SAFE IF TRAINED WITH IT", "a head that has seen the change follows it, one that has not does not"
    assert figure.low is not None and figure.high is not None
    if figure.low >= 0.8:
        return "SAFE", "the features stay where they are"
    if figure.high < 0.5:
        return "RISKY", "the features move nearly as far as to another frame"
    return "INCONCLUSIVE", "the interval holds both a safe and a risky value; 4 times the frames would tell"


def frame(seed: int) -> ndarray:
    """A small picture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:48, 0:64]
    base = np.stack([rows * 4, columns * 3, 255 - rows * 2 - columns], -1).astype(np.float64)
    spot = (rows - rng.integers(8, 40)) ** 2 + (columns - rng.integers(8, 56)) ** 2 < 60
    return np.where(spot[..., None], rng.integers(0, 255, 3), base).clip(0, 255).astype(np.uint8)


def named(report: Report, **changes: Any) -> Report:
    """The report with other fields of its encoder."""
    return replace(report, encoder=replace(report.encoder, **changes))
