"""lightly's own loops (data set, transform, heads, loss) around a backbone of ours."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from robossl.encoders.encoder import Encoder, EncoderConfig, build_encoder

BATCH = 64  # that of the recipes
Step = Callable[[list[Tensor]], Tensor]  # takes the views of a batch, returns the loss


def lightly_loop(
    method: str, backbone: str, size: int, images: Path, *, workers: int, precision: Literal["fp32", "bf16"]
) -> Callable[[int], None]:
    """Build a function that trains a number of steps."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone=backbone, input_hw=(size, size)))
    is_convolutional = backbone.startswith("resnet")
    if is_convolutional:
        encoder = encoder.to(memory_format=torch.channels_last)
    model, step, transform = {"simsiam": simsiam, "simclr": simclr, "dino": dino}[method](encoder, size)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05 * BATCH / 256, momentum=0.9, weight_decay=1e-4)
    batches = endless(images, transform, workers)

    def run(steps: int) -> None:
        # Our own blocks turn it on in this process.
        torch.use_deterministic_algorithms(False)
        for _ in range(steps):
            views = next(batches)
            if is_convolutional:
                views = [view.to(memory_format=torch.channels_last) for view in views]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = step(views)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.use_deterministic_algorithms(True)

    return run


def endless(images: Path, transform: Callable[..., object], workers: int) -> Iterator[list[Tensor]]:
    """Yield the views of batch after batch."""
    from lightly.data import LightlyDataset

    loader = torch.utils.data.DataLoader(
        LightlyDataset(str(images), transform=transform),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        for views, *_ in loader:
            yield views


def simsiam(encoder: Encoder, size: int) -> tuple[nn.Module, Step, Callable[..., object]]:
    """Return SimSiam's model, step and transform."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform

    projector = SimSiamProjectionHead(encoder.feature_dim, 2048, 2048)
    predictor = SimSiamPredictionHead(2048, 512, 2048)
    criterion = NegativeCosineSimilarity()

    def step(views: list[Tensor]) -> Tensor:
        z0, z1 = (projector(encoder(view).pooled) for view in views)
        loss: Tensor = (criterion(predictor(z0), z1.detach()) + criterion(predictor(z1), z0.detach())) / 2
        return loss

    return nn.ModuleList([encoder, projector, predictor]), step, SimSiamTransform(input_size=size, gaussian_blur=0.5)


def simclr(encoder: Encoder, size: int) -> tuple[nn.Module, Step, Callable[..., object]]:
    """Return SimCLR's model, step and transform."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    projector = SimCLRProjectionHead(encoder.feature_dim, encoder.feature_dim, 128, batch_norm=False)
    criterion = NTXentLoss(temperature=0.1)

    def step(views: list[Tensor]) -> Tensor:
        loss: Tensor = criterion(*projector(encoder(torch.cat(views)).pooled).float().chunk(2))
        return loss

    return nn.ModuleList([encoder, projector]), step, SimCLRTransform(input_size=size)


def dino(encoder: Encoder, size: int) -> tuple[nn.Module, Step, Callable[..., object]]:
    """Return DINO's model, step and transform: two global views and four local ones of half the size."""
    from lightly.loss import DINOLoss
    from lightly.models.modules.heads import DINOProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import DINOTransform

    head = DINOProjectionHead(encoder.feature_dim, 2048, 256, 1024, batch_norm=True)
    teacher = nn.ModuleList([copy.deepcopy(encoder), copy.deepcopy(head)])
    deactivate_requires_grad(teacher)
    criterion = DINOLoss(output_dim=1024)

    def step(views: list[Tensor]) -> Tensor:
        update_momentum(encoder, teacher[0], m=0.99)
        update_momentum(head, teacher[1], m=0.99)
        with torch.no_grad():
            targets = [teacher[1](teacher[0](view).pooled).float() for view in views[:2]]
        outputs = [head(encoder(view).pooled).float() for view in views]
        loss: Tensor = criterion(targets, outputs, epoch=0)
        return loss

    transform = DINOTransform(global_crop_size=size, local_crop_size=size // 2, n_local_views=4)
    return nn.ModuleList([encoder, head]), step, transform
