"""Rotation: torchvision's pixels, inside of padding too."""

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from robossl.augment.rotate import rotate

SIZES = torch.tensor([[40, 60], [33, 47], [40, 21]])
DEGREES = torch.tensor([17.0, -60.0, 5.5])


def test_rotation_is_torchvisions_and_padding_does_not_bleed_in():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 3, 40, 60), dtype=torch.uint8, generator=generator)
    turned = rotate(frames, DEGREES, SIZES)
    for frame, result, degrees, (height, width) in zip(frames, turned, DEGREES, SIZES, strict=True):
        expected = reference.rotate(frame[:, :height, :width], degrees.item(), InterpolationMode.BILINEAR)
        difference = (result[:, :height, :width].int() - expected.int()).abs()
        assert difference.max() <= 1 and difference.float().mean() < 0.01


def test_a_quarter_turn_is_exact():
    frame = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    turned = rotate(frame, torch.tensor([90.0]), torch.tensor([[32, 32]]))
    assert torch.equal(turned, frame.rot90(1, (-2, -1)))
