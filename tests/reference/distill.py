"""Distillation by the letter: cosine, squared and smooth-L1 distances, and equation 3 of SEED, one number at a time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from robossl.common.config import from_mapping
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.training.run_config import RunConfig

SIZE = 48  # so that maps have several cells
_FOLDER = tempfile.TemporaryDirectory(prefix="robossl-teachers-")


def save_teacher(folder: Path, *, seed: int = 0, **words: object) -> str:
    """Save a small network with random weights, the same in every process, and return its address."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = EncoderConfig(**{"backbone": "test_resnet", "input_hw": (32, 32), "zero_init_last": False} | words)
        save_encoder(build_encoder(config), folder, extra={"method": None, "step": 0, "data": []})
    return str(folder)


TEACHER = save_teacher(Path(_FOLDER.name) / "one", mean=(0.5, 0.5, 0.4), std=(0.2, 0.3, 0.3))
OTHER = save_teacher(Path(_FOLDER.name) / "other", seed=1, backbone="test_vit", input_hw=(32, 32))
SETTINGS = {
    "teacher": [TEACHER],
    "loss": "both",
    "dense_weight": 0.5,
    "relation_weight": 0.3,
    "queue_size": 21,
    "view": {"size": 32},
}
VARIANTS = {
    "relation": {"loss": "relation", "dense_weight": 0.0, "standardise": "none"},
    "dense at another size": {"loss": "feature", "pooled_weight": 0.0, "teacher_size": 48, "distance": "smooth_l1"},
    "phi_s": {"loss": "feature", "distance": "mse", "standardise": "phi_s", "statistics_steps": 2},
    "two teachers": {"teacher": [TEACHER, OTHER], "projector_layers": 2, "hidden_dim": 24, "teacher_size": 32},
}


def __getattr__(name: str) -> dict[str, object]:
    """Make `LEARN_SETTINGS` when they are asked for: with a teacher that has learned, on the clips that tests ship."""
    if name != "LEARN_SETTINGS":
        raise AttributeError(name)
    folder = Path(_FOLDER.name)
    if not (folder / "learned").exists():
        from robossl.data.ingest import ingest
        from robossl.training.pretrain import pretrain

        ingest((Path(__file__).parents[1] / "data" / "droid",), out=folder / "store", short_side=96, workers=1)
        config = {
            "method": {"name": "simclr", "view": {"size": 32}},
            "encoder": {"backbone": "test_resnet", "input_hw": [32, 32], "zero_init_last": False},
            "data": {"store": str(folder / "store")},
            "optim": {"name": "adamw", "lr": 1e-3, "lr_scaling": "none", "weight_decay": 1e-4, "warmup_steps": 100},
            "train": {"steps": 2000, "batch_size": 16, "sinks": [], "checkpoint_every": 2000},
        }
        pretrain(from_mapping(config, RunConfig), out=folder / "learned")
    return {"teacher": [str(folder / "learned")]}


Vectors = Sequence[Sequence[float]]


def cosine(p: Vectors, t: Vectors) -> float:
    """Mean of one minus the cosine."""
    return sum(1 - _dot(_unit(a), _unit(b)) for a, b in zip(p, t, strict=True)) / len(p)


def mse(p: Vectors, t: Vectors) -> float:
    return _mean_over_channels(p, t, lambda error: error**2)


def smooth_l1(p: Vectors, t: Vectors) -> float:
    return _mean_over_channels(p, t, lambda error: 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5)


def relation(p: Vectors, t: Vectors, queue: Vectors, temperature: float) -> float:
    """Mean KL divergence of the softmax over the own target and the queue, from the teacher's to the student's."""
    total = 0.0
    for a, b in zip(map(_unit, p), map(_unit, t), strict=True):
        candidates = [b, *queue]
        of_teacher, of_student = (_softmax([_dot(x, row) / temperature for row in candidates]) for x in (b, a))
        total += sum(y * math.log(y / x) for y, x in zip(of_teacher, of_student, strict=True))
    return total / len(p)


def _mean_over_channels(p: Vectors, t: Vectors, f) -> float:
    errors = [f(x - y) for a, b in zip(p, t, strict=True) for x, y in zip(a, b, strict=True)]
    return sum(errors) / len(errors)


def _softmax(logits: Sequence[float]) -> list[float]:
    powers = [math.exp(x - max(logits)) for x in logits]
    return [power / sum(powers) for power in powers]


def _unit(a: Sequence[float]) -> list[float]:
    length = math.sqrt(_dot(a, a))
    return [x / length for x in a]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _standardised(rows: Vectors, mean: Sequence[float], scale: Sequence[float]) -> list[list[float]]:
    return [[(x - m) / s for x, m, s in zip(row, mean, scale, strict=True)] for row in rows]


def loss(method, batch) -> float:
    """One teacher, and maps of equal grids: what the default settings of the tests have."""
    config, head = method.config, method.heads[0]
    features = method.encoder(batch.views[0].pixels)
    targets = teacher_features(batch.views[-1].pixels, method.encoder.config)
    rows = {"pooled": (features.pooled, targets.pooled), "dense": tuple(map(_rows, (features.dense, targets.dense)))}
    found = {}
    for name, (mine, theirs) in rows.items():
        standard = head.standards[name]
        target = _standardised(theirs.tolist(), standard.mean.tolist(), standard.scale.tolist())
        found[name] = (head.projectors[name](mine).tolist(), target)
    distance = {"cosine": cosine, "mse": mse, "smooth_l1": smooth_l1}[config.distance]
    queue = head.queue.rows.tolist()
    return (
        config.pooled_weight * distance(*found["pooled"])
        + config.dense_weight * distance(*found["dense"])
        + config.relation_weight * relation(*found["pooled"], queue, config.temperature)
    )


def teacher_features(pixels, student):
    """The features of the teacher of SETTINGS, with its weights read anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = EncoderConfig("test_resnet", input_hw=(32, 32), zero_init_last=False)
        teacher = build_encoder(config).to(pixels.dtype).eval()
    columns = []
    own = ((0.5, 0.5, 0.4), (0.2, 0.3, 0.3))
    for channel in range(3):
        value = pixels[:, channel] * student.std[channel] + student.mean[channel]
        columns.append((value - own[0][channel]) / own[1][channel])
    with torch.no_grad():
        return teacher(torch.stack(columns, 1))


def _rows(dense):
    return dense.permute(0, 2, 3, 1).flatten(0, 2)
