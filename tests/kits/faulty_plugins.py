"""Plugins of an outsider: a sound one of each kind, and faulty ones that differ from it in one thing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from robossl.data.source import Frame, Listing, Unit
from robossl.evaluation.protocol import Predictions
from robossl.methods.base import Loss, Method
from robossl.probes.factors.factor import Factor, on_pixels
from robossl.views import ViewSpec


class Sound:
    """A source of the episodes `a` and `b`, three frames each; `columns` is what its listing says."""

    columns: ClassVar[dict[str, int]] = {}

    def __init__(self, root: Path, labels: Path | None = None, options: object = None) -> None: ...

    @staticmethod
    def accepts(root: Path) -> bool:
        return False

    def listing(self) -> Any:
        return Listing([Unit(key, "1", num_frames=3, split="train") for key in "ab"], columns=self.columns)

    def frames(self, unit: Unit) -> Any:
        for number in range(3):
            yield self.frame(unit.key, number)

    def frame(self, key: str, number: int) -> Any:
        return Frame(np.full((32, 48, 3), 40 * number + ord(key), np.uint8), time_seconds=number / 10)


class SameKeys(Sound):
    def listing(self) -> Any:
        return Listing([Unit("a", str(number), num_frames=3) for number in range(2)])


class ListListing(Sound):
    def listing(self) -> Any:
        return [Unit("a", "1", num_frames=3)]


class DictUnits(Sound):
    def listing(self) -> Any:
        return Listing([{"key": "a"}])  # type: ignore[list-item]


class NumberLabel(Sound):
    def listing(self) -> Any:
        return Listing([Unit("a", "1", num_frames=3, labels={"kind": 3})])  # type: ignore[dict-item]


class OnlyRoot(Sound):
    def __init__(self, root: Path) -> None: ...


class BoundAccepts(Sound):
    def accepts(self, root: Path) -> bool:  # type: ignore[override]
        return False


class NoFrames(Sound):
    def frames(self, unit: Unit) -> Any: ...


class Arrays(Sound):
    def frame(self, key: str, number: int) -> Any:
        return super().frame(key, number).pixels


class Raises(Sound):
    def frame(self, key: str, number: int) -> Any:
        return {}["pixels"]


class Changed(Sound):
    """Changes the frames of episode `b` from the second on, or with `every`, of both episodes from the first on."""

    every = False

    def frame(self, key: str, number: int) -> Any:
        sound = super().frame(key, number)
        return self.change(sound) if self.every or (key == "b" and number) else sound

    def change(self, frame: Frame) -> Frame:
        raise NotImplementedError


class Grey(Changed):
    def change(self, frame: Frame) -> Frame:
        return replace(frame, pixels=frame.pixels[:, :, 0])


class AllGrey(Grey):
    every = True


class Floats(Changed):
    def change(self, frame: Frame) -> Frame:
        return replace(frame, pixels=frame.pixels / 255)


class ChannelsFirst(Changed):
    def change(self, frame: Frame) -> Frame:
        return replace(frame, pixels=frame.pixels.transpose(2, 0, 1))


class Resized(Changed):
    def change(self, frame: Frame) -> Frame:
        return replace(frame, pixels=frame.pixels[:16])


class NanTime(Changed):
    def change(self, frame: Frame) -> Frame:
        return replace(frame, time_seconds=float("nan"))


class WideColumn(Changed):
    columns: ClassVar[dict[str, int]] = {"action": 2}

    def frame(self, key: str, number: int) -> Any:
        return replace(super().frame(key, number), columns={"action": np.zeros(3 if number and key == "b" else 2)})

    def change(self, frame: Frame) -> Frame:
        return frame


class NoColumn(Changed):
    columns: ClassVar[dict[str, int]] = {"action": 2}

    def frame(self, key: str, number: int) -> Any:
        columns = {} if number and key == "b" else {"action": np.zeros(2)}
        return replace(Sound.frame(self, key, number), columns=columns)


@dataclass(frozen=True, slots=True)
class FaultyConfig:
    """A method with one fault."""

    fault: str = ""

    def build(self, encoder: Any) -> Any:
        return {
            "module": lambda: nn.Linear(2, 2),
            "no encoder": lambda: Distances(None, self),
            "no views": lambda: NoViews(encoder, self),
        }.get(self.fault, lambda: Distances(encoder, self))()


class NoViews(Method):
    def __init__(self, encoder: Any, config: FaultyConfig) -> None:
        super().__init__()
        self.config, self.head = config, nn.LazyLinear(4)
        if encoder is not None:
            self.encoder = encoder
            self.head = nn.Linear(encoder.feature_dim, 4)
            self.encoder.requires_grad_(config.fault != "frozen")

    def forward(self, batch: Any) -> Any:
        fault = self.config.fault
        with torch.set_grad_enabled(fault not in ("no gradient", "frozen")):
            y = torch.cat([self.encoder(view.pixels).pooled for view in batch.views])
        z0, z1 = self.head(y).chunk(2)
        loss = Loss((z0 - z1).square().mean(), {"spread": z0.detach().std()}, (z0.detach(), z1.detach()))
        return result(loss, fault)


class Distances(NoViews):
    def views(self) -> Any:
        view = ViewSpec(size=32)
        found = {"one view": view, "sizes": (32, 32), "empty": (), "list of views": [view, view]}
        return found.get(self.config.fault, (view, view))


def result(loss: Loss, fault: str) -> Any:
    """Return a loss with a fault."""
    match fault:
        case "tensor":
            return loss.value
        case "nothing":
            return None
        case "vector":
            return loss._replace(value=loss.value.repeat(4))
        case "constant":
            return loss._replace(value=loss.value.detach())
        case "number":
            return loss._replace(metrics={"spread": 0.5})
        case "wide metric":
            return loss._replace(metrics={"spread": torch.zeros(3)})
        case "one output":
            return loss._replace(outputs=loss.outputs[0])
        case "maps":
            return loss._replace(outputs=(torch.zeros(4, 8, 2, 2),))
        case "no outputs":
            return loss._replace(outputs=())
        case "weight":
            return loss._replace(weight=4)
    return loss


def uniform(train: np.ndarray, labels: np.ndarray, groups: np.ndarray, test: np.ndarray, *, seed: int) -> Predictions:
    """A sound protocol: all classes are equally likely."""
    num_classes = labels.max() + 1
    return Predictions(np.full((len(test), num_classes), 1 / num_classes), details={"seed": seed})


def without_details(*arrays: np.ndarray, seed: int) -> Predictions:
    return Predictions(uniform(*arrays, seed=seed).scores)


def without_seed(train: np.ndarray, labels: np.ndarray, groups: np.ndarray, test: np.ndarray) -> Predictions:
    return uniform(train, labels, groups, test, seed=0)


def only_scores(*arrays: np.ndarray, seed: int) -> Any:
    return uniform(*arrays, seed=seed).scores


def flat(*arrays: np.ndarray, seed: int) -> Any:
    return Predictions(uniform(*arrays, seed=seed).scores[:, 0], {})


def whole_numbers(*arrays: np.ndarray, seed: int) -> Any:
    scores = uniform(*arrays, seed=seed).scores.copy()
    scores[:] = np.eye(scores.shape[1])[0]
    return Predictions(scores.astype(np.int64), {})


def not_a_number(*arrays: np.ndarray, seed: int) -> Any:
    scores = uniform(*arrays, seed=seed).scores.copy()
    scores[0, 0] = np.nan
    return Predictions(scores, {})


def votes(*arrays: np.ndarray, seed: int) -> Any:
    return Predictions(20 * uniform(*arrays, seed=seed).scores, {})


def negative(*arrays: np.ndarray, seed: int) -> Any:
    scores = uniform(*arrays, seed=seed).scores.copy()
    scores[:, 0], scores[:, 1] = scores[:, 0] + 1, scores[:, 1] - 1
    return Predictions(scores, {})


def tensors(*arrays: np.ndarray, seed: int) -> Any:
    return Predictions(torch.from_numpy(uniform(*arrays, seed=seed).scores), {})  # type: ignore[arg-type]


def numpy_details(*arrays: np.ndarray, seed: int) -> Any:
    return Predictions(uniform(*arrays, seed=seed).scores, {"k": np.int64(3)})  # type: ignore[dict-item]


def _darken(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (pixels * (1 - values[:, 0])[:, None, None, None]).astype(np.uint8)


def _stretch(pixels: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.repeat(_darken(pixels, values), 2, axis=1)


DARKER = Factor(
    name="DARKER",
    title="darker",
    unit="share of the light",
    family="photometric",
    clean=0.0,
    sides=((0.1, 0.2, 0.3, 0.4, 0.5),),
    apply=on_pixels(_darken),
)
FAMILY = replace(DARKER, family="light")  # type: ignore[arg-type]
BASE = replace(DARKER, base="round")  # type: ignore[arg-type]
FLAT = replace(DARKER, sides=(0.1, 0.2, 0.3, 0.4, 0.5))  # type: ignore[arg-type]
THREE_SIDES = replace(DARKER, sides=DARKER.sides * 3)
THREE_LEVELS = replace(DARKER, sides=((0.1, 0.2, 0.3),))
UNORDERED = replace(DARKER, sides=((0.1, 0.3, 0.2, 0.4, 0.5),))
CLEAN_LEVEL = replace(DARKER, sides=((0.0, 0.2, 0.3, 0.4, 0.5),))
ENDLESS = replace(DARKER, sides=((0.1, 0.2, 0.3, 0.4, float("inf")),))
LOG_OF_ZERO = replace(DARKER, scale="log")
FLOATS = replace(DARKER, apply=on_pixels(lambda pixels, values: pixels * 0.5))
LISTS = replace(DARKER, apply=on_pixels(lambda pixels, values: list(pixels)))  # type: ignore[arg-type,return-value]
TALL = replace(DARKER, apply=on_pixels(_stretch))
ALWAYS = replace(DARKER, apply=on_pixels(lambda pixels, values: 255 - pixels))
