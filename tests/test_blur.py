"""Blur: torchvision's pixels within 1e-5, a sigma for each sample."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from robossl.blur import gaussian_blur, kernel_radius

SIGMAS = torch.tensor([0.1, 0.7, 1.3, 2.0])


@pytest.mark.parametrize("size", [8, 33, 64, 96])
def test_each_sample_has_its_own_sigma(size):
    x = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    radius = kernel_radius(2.0, size)
    taps = 2 * radius + 1
    expected = [reference.gaussian_blur(i, [taps, taps], [s, s]) for i, s in zip(x, SIGMAS.tolist(), strict=True)]
    assert (gaussian_blur(x, SIGMAS, radius=radius) - torch.stack(expected)).abs().max() < 1e-5


def test_the_cut_off_tail_is_less_than_a_grey_level():
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 255
    sigma = torch.tensor([2.0])
    cut = gaussian_blur(edge, sigma, radius=kernel_radius(2.0, 64))
    whole = gaussian_blur(edge, sigma, radius=20)
    assert (cut - whole).abs().max() < 0.5


def test_the_kernel_fits_tiny_views():
    assert kernel_radius(2.0, 5) == 4
    flat = torch.full((1, 3, 5, 5), 7.0)
    assert gaussian_blur(flat, torch.tensor([2.0]), radius=4) == pytest.approx(flat, abs=1e-5)
