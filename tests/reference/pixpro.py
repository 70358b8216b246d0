"""PixPro by the letter: equations 1 to 5 of arXiv:2011.10043, one pixel at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

SIZE = 66  # 3 x 3 bins
SETTINGS = {"hidden_dim": 24, "output_dim": 12}
LEARN_SETTINGS = {"hidden_dim": 256, "output_dim": 64, "view_0": {"size": SIZE}, "view_1": {"size": SIZE}}
VARIANTS = {
    "official": {"variant": "official", "transform_layers": 2},
    "between frames too": {"instance_weight": 1.0, "transform_layers": 0, "sharpness": 1.0},
    "official between frames too": {"instance_weight": 0.5, "variant": "official"},
}

Vector = Sequence[float]


def centre(box: Vector, source_hw: Sequence[int], grid: tuple[int, int], row: int, column: int) -> tuple[float, float]:
    """Where the middle of a bin lies, in pixels of the source frame; a flipped box runs from right to left."""
    (height, width), (x0, y0, x1, y1) = source_hw, box
    bin_width, bin_height = (x1 - x0) * width / grid[1], (y1 - y0) * height / grid[0]
    return x0 * width + (column + 0.5) * bin_width, y0 * height + (row + 0.5) * bin_height


def diagonal(box: Vector, source_hw: Sequence[int], grid: tuple[int, int]) -> float:
    (height, width), (x0, y0, x1, y1) = source_hw, box
    return math.sqrt(((x1 - x0) * width / grid[1]) ** 2 + ((y1 - y0) * height / grid[0]) ** 2)


def distances(
    box: Vector, other: Vector, source_hw: Sequence[int], grid: tuple[int, int], other_grid: tuple[int, int]
) -> list[list[float]]:
    """Distance of every pair of centres, in diagonals of the larger bin."""
    larger = max(diagonal(box, source_hw, grid), diagonal(other, source_hw, other_grid))
    found = []
    for i in range(grid[0] * grid[1]):
        x, y = centre(box, source_hw, grid, i // grid[1], i % grid[1])
        row = []
        for j in range(other_grid[0] * other_grid[1]):
            other_x, other_y = centre(other, source_hw, other_grid, j // other_grid[1], j % other_grid[1])
            row.append(math.sqrt((x - other_x) ** 2 + (y - other_y) ** 2) / larger)
        found.append(row)
    return found


def matches(views, grid: tuple[int, int], threshold: float, *, in_fractions: bool = False) -> list[list[list[bool]]]:
    """Equation 1 for each image; the authors' code takes the frame as 1 wide and 1 high."""
    first, second = views
    source_hw = [(1, 1) for _ in first.box] if in_fractions else first.source_hw.tolist()
    each = zip(first.box.tolist(), second.box.tolist(), source_hw, strict=True)
    return [
        [[distance < threshold for distance in row] for row in distances(box, other, hw, grid, grid)]
        for box, other, hw in each
    ]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: Vector, b: Vector) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def unit(a: Vector) -> list[float]:
    return [x / math.sqrt(dot(a, a)) for x in a]


def propagated(x: Sequence[Vector], values: Sequence[Vector], sharpness: float) -> list[list[float]]:
    """Equations 3 and 4."""
    rows = []
    for pixel in x:
        weights = [max(cosine(pixel, other), 0.0) ** sharpness for other in x]
        rows.append([sum(w * v[k] for w, v in zip(weights, values, strict=True)) for k in range(len(values[0]))])
    return rows


def consistency(y: Sequence[Vector], x: Sequence[Vector], matched: Sequence[Sequence[bool]]) -> float:
    """One direction of equation 5 for one image."""
    pairs = [(i, j) for i, row in enumerate(matched) for j, found in enumerate(row) if found]
    return -sum(cosine(y[i], x[j]) for i, j in pairs) / len(pairs) if pairs else 0.0


def pixels(x) -> list[list[list[float]]]:
    """A map (b, c, h, w) as lists of pixels, row by row."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).tolist()


def maps(encoder, projector, views):
    return [projector(encoder(view.pixels).dense) for view in views]


def between_frames(method, batch) -> float:
    """The instance branch: BYOL's cosines, both ways; officially heads run on every bin and are pooled after."""
    encoder, _, projector = method.teacher.copies
    own = (method.instance.projector, method.instance.predictor)
    predictions = [vectors(method, method.encoder(view.pixels), own) for view in batch.views]
    targets = [vectors(method, encoder(view.pixels), (projector,)) for view in batch.views]
    pairs = [*zip(predictions[0], targets[1], strict=True), *zip(predictions[1], targets[0], strict=True)]
    return -sum(cosine(p, z) for p, z in pairs) / len(batch.index)


def vectors(method, features, heads) -> list[list[float]]:
    x = features.dense if method.config.variant == "official" else features.pooled
    for head in heads:
        x = head(x)
    if method.config.variant != "official":
        return x.tolist()
    return [[sum(values) / len(values) for values in zip(*image, strict=True)] for image in pixels(x)]


def loss(method, batch) -> float:
    config = method.config
    x = maps(method.encoder, method.projector, batch.views)
    teacher = [pixels(each) for each in maps(*method.teacher.copies[:2], batch.views)]
    values = [pixels(method.propagation.transform(each)) for each in x]
    if config.variant == "official":
        values = [[[unit(row) for row in image] for image in view] for view in values]
    x = [pixels(each) for each in x]
    grid = (3, 3)
    total = 0.0
    official = config.variant == "official"
    for i, matched in enumerate(matches(batch.views, grid, config.threshold, in_fractions=official)):
        y0, y1 = (propagated(x[v][i], values[v][i], config.sharpness) for v in (0, 1))
        total += consistency(y0, teacher[1][i], matched)
        total += consistency(y1, teacher[0][i], list(zip(*matched, strict=True)))
    total /= len(batch.index)
    if config.instance_weight:
        total += config.instance_weight * between_frames(method, batch)
    return total * (2 if official else 1)
