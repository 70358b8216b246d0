"""Frozen stages: which weights they are, and that nothing of them moves, whatever trains around them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from robossl.encoders.encoder import Encoder, EncoderConfig, build_encoder
from robossl.encoders.layers import layer_numbers
from robossl.errors import InputError

# The modules that a reader of the architecture would name, for each number of stages.
FROZEN = [
    ("resnet18", 0, ["conv1", "bn1"]),
    ("resnet18", 2, ["conv1", "bn1", "layer1", "layer2"]),
    ("test_vit", 1, ["cls_token", "pos_embed", "patch_embed", "blocks.0"]),
    ("tf_efficientnet_lite0", 3, ["conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2"]),
    ("convnext_atto", 1, ["stem", "stages.0"]),
]


def encoder_of(backbone: str, stages: int | None) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(backbone, input_hw=(32, 32), frozen_stages=stages, zero_init_last=False))


@pytest.mark.parametrize(("backbone", "stages", "names"), FROZEN)
def test_the_stem_and_the_first_stages_are_frozen(backbone: str, stages: int, names: list[str]) -> None:
    encoder = encoder_of(backbone, stages)
    inside = tuple(f"{name}." for name in names)
    for name, weight in encoder.backbone.named_parameters():
        assert weight.requires_grad != f"{name}.".startswith(inside), name
    for name, module in encoder.backbone.named_modules():
        if any(True for _ in module.parameters(recurse=False)) and name:
            assert module.training != f"{name}.".startswith(inside), name


def test_a_step_moves_nothing_that_is_frozen() -> None:
    encoder = copy.deepcopy(encoder_of("resnet18", 2)).train()
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.SGD([w for w in encoder.parameters() if w.requires_grad], lr=0.1)
    encoder(torch.randn(4, 3, 32, 32)).pooled.square().sum().backward()
    optimizer.step()
    for name, value in encoder.state_dict().items():
        stays = name.startswith(tuple(f"backbone.{part}" for part in ("conv1", "bn1", "layer1", "layer2")))
        assert torch.equal(value, before[name]) == stays, name


def test_frozen_batch_norms_use_their_running_statistics() -> None:
    encoder = encoder_of("resnet18", 0)
    encoder.backbone.bn1.running_mean.fill_(3.0)
    encoder.backbone.bn1.running_var.fill_(4.0)
    seen: list[torch.Tensor] = []
    encoder.backbone.bn1.register_forward_hook(lambda _, inputs, out: seen.extend((inputs[0], out.clone())))
    encoder.train()(torch.randn(4, 3, 32, 32))
    torch.testing.assert_close(seen[1], (seen[0] - 3) / (4 + encoder.backbone.bn1.eps) ** 0.5)


def test_frozen_statistics_stay_while_all_weights_train() -> None:
    """Scales and biases of batch-norms train too; a sample's features do not depend on its batch."""
    config = EncoderConfig("resnet18", input_hw=(32, 32), frozen_norm_stats=True, zero_init_last=False)
    encoder = copy.deepcopy(build_encoder(config)).eval().train()
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    batch = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(encoder(batch).pooled[:1], encoder(batch[:1]).pooled)
    encoder(batch).pooled.square().sum().backward()
    optimizer.step()
    for name, value in encoder.state_dict().items():
        stays = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, before[name]) == stays, name
    with pytest.raises(InputError, match=r"test_vit has no batch-norm; set encoder.frozen_norm_stats to false"):
        build_encoder(EncoderConfig("test_vit", input_hw=(32, 32), frozen_norm_stats=True))


def test_a_number_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"frozen_stages 4 leaves nothing of resnet18 to train.* choose 0 .* to 3"):
        encoder_of("resnet18", 4)
    with pytest.raises(InputError, match="frozen_stages"):
        EncoderConfig(frozen_stages=-1)
    with pytest.raises(InputError, match="mine does not say what its layers are"):
        layer_numbers(nn.Linear(3, 3), name="mine")
