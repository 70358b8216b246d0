"""Online kNN: measure during training how well a label can be predicted from the encoder's features."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray

from robossl.common.suggest import suggest_name
from robossl.data.store import Store
from robossl.encoders.encoder import Encoder
from robossl.measure.knn import weighted_knn
from robossl.measure.metrics import balanced_accuracy
from robossl.measure.store_rows import spread_rows
from robossl.training.compiling import uncompiled
from robossl.training.run_config import OnlineKnnConfig

CHUNK = 128  # frames embedded at a time


def why_no_online_knn(store: Store, config: OnlineKnnConfig) -> str:
    """Return why a store cannot be used for online kNN and what to do about that; "" if the store can be used."""
    if not store.label_names:
        return f"{store.path} has no labels; ingest with --labels to watch one"
    if config.label not in store.label_names:
        return f"{store.path}: {suggest_name('label', config.label, store.label_names)} with --knn.label"
    splits = [name for name in store.manifest.splits if name]
    for key, split in (("train", config.train_split), ("test", config.test_split)):
        if split not in splits:
            cure = f"choose from {', '.join(splits)} with --knn.{key}-split" if splits else "it has none"
            return f"{store.path} has no split {split!r}; {cure}"
    names = store.labels(config.label)
    train, test = (set(names[store.episode_split == each]) - {""} for each in (config.train_split, config.test_split))
    if not train & test:
        return (
            f"{config.label!r} has no class in both {config.train_split!r} ({len(train)} classes) and "
            f"{config.test_split!r} ({len(test)}); choose others with --knn.label or --knn.test-split"
        )
    return ""


class OnlineKnn:
    """Measures the balanced accuracy of weighted kNN for one label (k=20, T=0.07; arXiv:1805.01978).

    The neighbours are frames of `train_split`, the scored frames are of `test_split`. Measuring does not affect
    training: it changes no random state, batch statistics or gradients.
    """

    def __init__(self, store: Store, config: OnlineKnnConfig, *, device: torch.device) -> None:
        self.store, self.config, self.device = store, config, device
        train_rows, train_names = self._labelled(config.train_split)
        test_rows, test_names = self._labelled(config.test_split)
        shared = sorted(set(train_names) & set(test_names))
        assert shared, "see why_no_online_knn"
        self.classes = sorted(set(train_names))
        known = np.isin(test_names, shared)
        self.train_rows, self.test_rows = train_rows, test_rows[known]
        self.train_labels = np.searchsorted(self.classes, train_names)
        self.test_labels = np.searchsorted(self.classes, test_names[known])

    def _labelled(self, split: str) -> tuple[Int64[ndarray, " n"], ndarray]:
        rows = self.store.rows(split)
        episodes = np.unique(self.store.episode_of(rows))
        names = self.store.labels(self.config.label)
        episodes = episodes[names[episodes] != ""]
        picked = spread_rows(self.store, episodes, per_episode=self.config.frames_per_episode)
        return picked, names[self.store.episode_of(picked)]

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Embed the frames of both splits; return the accuracy as a dict with the metric's name."""
        was_training = encoder.training
        encoder.eval()
        with uncompiled(encoder):  # compiling for these batches would take minutes
            train, test = self._embed(encoder, self.train_rows), self._embed(encoder, self.test_rows)
        encoder.train(was_training)
        scores = weighted_knn(train, self.train_labels, test)
        accuracy = balanced_accuracy(self.test_labels, scores.argmax(axis=1))
        return {f"knn/{self.config.label}": float(accuracy)}

    def describe(self, scored: dict[str, float]) -> str:
        """Describe the result of a measurement in a sentence."""
        (accuracy,) = scored.values()
        num_classes = len(np.unique(self.test_labels))
        return (
            f"kNN reads {self.config.label} at {100 * accuracy:.1f} % balanced accuracy "
            f"({num_classes} classes, {100 / num_classes:.1f} % by chance)"
        )

    @torch.no_grad()
    def _embed(self, encoder: Encoder, rows: Int64[ndarray, " n"]) -> Float[ndarray, "n d"]:
        parts = []
        for at in range(0, len(rows), CHUNK):
            frames = self.store.decode(rows[at : at + CHUNK])
            pixels = torch.cat([encoder.preprocess(frame.permute(1, 2, 0)[None].to(self.device)) for frame in frames])
            features = encoder(pixels)
            chosen = features.pooled if self.config.output == "pooled" else features.cls
            parts.append(chosen.float().cpu())
        return torch.cat(parts).numpy()
