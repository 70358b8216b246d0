"""Blur: torchvision's pixels within 1e-5, a sigma for each sample."""

import pytest
import torch
from methods_kit import reference as oracle
from torchvision.transforms.v2 import functional as reference

from robossl.augment.blur import gaussian_blur, kernel_radius, official_radius

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


@pytest.mark.parametrize("size", [12, 24, 40, 66])
def test_the_official_blur_is_a_tenth_wide_and_sees_zeros_beyond_the_border(size):
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.4, 2.0])
    found = gaussian_blur(x, sigmas, radius=official_radius(size), border="zeros")
    for image, sigma, blurred in zip(x, sigmas.tolist(), found, strict=True):
        rows = [[tuple(pixel) for pixel in row] for row in image.permute(1, 2, 0).double().tolist()]
        expected = torch.tensor(oracle("official_colours").blur(rows, sigma)).permute(2, 0, 1)
        assert (blurred - expected).abs().max() < 1e-5


@pytest.mark.parametrize("size", [8, 64])
def test_a_border_of_zeros_darkens_the_edge_alone(size):
    flat, radius = torch.full((1, 3, size, size), 200.0), 3
    found = gaussian_blur(flat, torch.tensor([2.0]), radius=radius, border="zeros")
    inner = found[..., radius:-radius, radius:-radius]
    assert (inner - 200).abs().max() < 1e-3
    assert found[..., 0, :].max() < 160
    assert official_radius(224) == 11
