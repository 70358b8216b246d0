"""Colour operations: torchvision's pixels within 1e-5 of the range, each sample with its own factor and order."""

import itertools

import numpy as np
import pytest
import torch
from methods_kit import reference as oracle
from torchvision.transforms.v2 import functional as reference

from robossl.augment import colour
from robossl.augment.colour_official import official_jitter_

OFFICIAL = oracle("official_colours")
LEVEL = 255.0
REFERENCES = (
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
    reference.adjust_hue,
)


def images(n, size=17, seed=0):
    """Floats in 0..1 with gray, black, white and saturated pixels among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, size, size, generator=generator)
    x[:, :, 0] = x[:, :1, 0]
    x[:, :, 1] = torch.randint(0, 2, (n, 3, size), generator=generator).float()
    x[:, :, 2] = torch.randint(0, 256, (n, 3, size), generator=generator) / 255
    return x


def difference(levels, expected):
    return (levels / LEVEL - expected).abs().max().item()


@pytest.mark.parametrize("operation", range(4))
@pytest.mark.parametrize("size", [16, 33, 130])
def test_one_operation_with_a_factor_for_each_sample(operation, size):
    factors = [0.0, 0.3, 0.5, 1.0, 1.4, 1.8] if operation < 3 else [-0.5, -0.34, -0.2, 0.0, 0.1, 1 / 3, 0.5]
    x = images(len(factors), size)
    expected = torch.stack([REFERENCES[operation](i, f) for i, f in zip(x, factors, strict=True)])
    levels = x * LEVEL
    order = np.array([[operation, -1, -1, -1]] * len(x))
    colour.jitter_(levels, order, np.array([[f] * 4 for f in factors], dtype=np.float32))
    assert difference(levels, expected) < 1e-5


def test_every_order_and_no_operation():
    orders = np.array([*itertools.permutations(range(4)), (-1, -1, -1, -1), (2, -1, 0, -1)])
    n = len(orders)
    generator = torch.Generator().manual_seed(1)
    factors = torch.cat([torch.rand(n, 3, generator=generator) * 1.6, torch.rand(n, 1, generator=generator) - 0.5], 1)
    x = images(n)
    levels = x * LEVEL
    colour.jitter_(levels, orders, factors.numpy())
    for image, level, order, factor in zip(x, levels, orders, factors, strict=True):
        for operation in order[order >= 0]:
            image = REFERENCES[operation](image, factor[operation].item())
        assert difference(level, image) < 1e-5


def test_gray_and_solarize_touch_the_named_samples_only():
    x = images(5)
    rows = torch.tensor([3, 1])
    for change, expected in (
        (colour.grayscale_, reference.rgb_to_grayscale(x, 3)),
        (lambda a, b: colour.solarize_(a, b, threshold=0.4), reference.solarize(x, 0.4)),
    ):
        levels = x * LEVEL
        change(levels, rows)
        assert difference(levels[rows], expected[rows]) < 1e-5
        assert torch.equal(levels[[0, 2, 4]], (x * LEVEL)[[0, 2, 4]])


def officially(x, order, factors, whose):
    levels = x * LEVEL
    official_jitter_(levels, np.array(order), np.array(factors, dtype=np.float32), additive=whose == "byol")
    return levels


def letter_by_letter(image, order, factors, whose):
    rows = [[tuple(pixel) for pixel in row] for row in image.permute(1, 2, 0).double().tolist()]
    return torch.tensor(OFFICIAL.jitter(rows, order, factors, whose)).permute(2, 0, 1)


@pytest.mark.parametrize("whose", ["byol", "simclr"])
@pytest.mark.parametrize("operation", range(4))
def test_an_official_operation_is_its_plain_formula(operation, whose):
    factors = [0.0, 0.2, 0.6, 1.0, 1.3, 1.8] if operation < 3 else [-0.5, -0.2, 0.0, 0.1, 1 / 3, 0.5]
    x = images(len(factors))
    levels = officially(x, [[operation, -1, -1, -1]] * len(x), [[f] * 4 for f in factors], whose)
    for image, level, factor in zip(x, levels, factors, strict=True):
        assert difference(level, letter_by_letter(image, [operation], [factor] * 4, whose)) < 1e-5


@pytest.mark.parametrize("whose", ["byol", "simclr"])
def test_official_operations_follow_every_order(whose):
    orders = [*itertools.permutations(range(4)), (-1, -1, -1, -1), (2, -1, 0, -1), (3, 1, -1, -1)]
    generator = torch.Generator().manual_seed(1)
    n = len(orders)
    factors = torch.cat([torch.rand(n, 3, generator=generator) * 1.6, torch.rand(n, 1, generator=generator) - 0.5], 1)
    x = images(n)
    levels = officially(x, orders, factors.tolist(), whose)
    for image, level, order, factor in zip(x, levels, orders, factors.tolist(), strict=True):
        assert difference(level, letter_by_letter(image, order, factor, whose)) < 1e-5


def test_official_colours_are_not_torchvisions():
    """BYOL's brightness at 1.3 is 46 levels from torchvision's on a grey of 100; contrast and saturation differ too."""
    grey = torch.full((1, 3, 8, 8), 100 / 255)
    theirs = officially(grey, [[0, -1, -1, -1]], [[1.3] * 4], "byol")
    assert theirs.unique().item() == pytest.approx(100 + 0.3 * 255, abs=1e-3)
    ours = grey * LEVEL
    colour.jitter_(ours, np.array([[0, -1, -1, -1]]), np.array([[1.3] * 4], dtype=np.float32))
    assert (theirs - ours).mean().item() == pytest.approx(46.5, abs=0.1)
    x = images(1) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)  # reddish: its channels have other means than its luma
    for operation in (colour.CONTRAST, colour.SATURATION):
        order, factors = [[operation, -1, -1, -1]], [[1.5] * 4]
        ours = x * LEVEL
        colour.jitter_(ours, np.array(order), np.array(factors, dtype=np.float32))
        assert (officially(x, order, factors, "simclr") - ours).abs().mean() > 2
