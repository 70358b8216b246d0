from dataclasses import replace

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.training.optim import (
    Lars,
    OptimConfig,
    _param_groups,
    build_optimizer,
    peak_lr,
    set_rates,
    start_momentum,
)


class Toy(nn.Module):
    constant_lr = ("predictor.",)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.predictor = nn.Linear(5, 5)


def loss_of(model: Toy) -> torch.Tensor:
    torch.manual_seed(1)
    out: torch.Tensor = model.predictor(model.body(torch.randn(6, 4)))
    return out.square().sum()


def lars_by_hand(model: Toy, *, lr: float, steps: int, wd: float, inside: bool, exclude: bool) -> list[torch.Tensor]:
    """The update of the paper (and of SimCLR's code when `inside`), a tensor at a time."""
    weights = [p.detach().clone() for p in model.parameters()]
    velocity = [torch.zeros_like(w) for w in weights]
    copy = Toy()
    copy.load_state_dict(model.state_dict())
    for _ in range(steps):
        for p, w in zip(copy.parameters(), weights, strict=True):
            p.data.copy_(w)
        grads = torch.autograd.grad(loss_of(copy), list(copy.parameters()))
        for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
            skip = exclude and w.ndim <= 1
            update = g if skip else g + wd * w
            ratio = 1.0
            if not skip and w.norm() > 0 and update.norm() > 0:
                ratio = float(0.001 * w.norm() / update.norm())
            if inside:
                velocity[i] = 0.9 * velocity[i] + lr * ratio * update
                weights[i] = w - velocity[i]
            else:
                velocity[i] = 0.9 * velocity[i] + ratio * update
                weights[i] = w - lr * velocity[i]
    return weights


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("exclude", [True, False])
def test_lars_equals_the_formula(inside: bool, exclude: bool) -> None:
    torch.manual_seed(0)
    model = Toy()
    wanted = lars_by_hand(model, lr=0.5, steps=3, wd=1e-4, inside=inside, exclude=exclude)
    config = OptimConfig(
        name="lars",
        lr=0.5,
        lr_scaling="none",
        decay="matrices" if exclude else "all",
        lars_momentum="inside" if inside else "outside",
    )
    optimizer = build_optimizer(config, model, batch_size=8)  # type: ignore[arg-type]
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for got, want in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-5, atol=1e-7)


def test_groups_follow_decay_and_constant_rate() -> None:
    groups = _param_groups(OptimConfig(decay="matrices", weight_decay=0.3), Toy())
    shape = {(g["weight_decay"], g["constant_lr"]): len(g["params"]) for g in groups}
    assert shape == {(0.3, True): 1, (0.3, False): 1, (0.0, True): 1, (0.0, False): 3}


def test_constant_group_keeps_its_rate() -> None:
    config = OptimConfig(lr=0.05)
    optimizer = build_optimizer(config, Toy(), batch_size=512)  # type: ignore[arg-type]
    assert set_rates(optimizer, config, step=50, steps=100, batch_size=512) == pytest.approx(0.05)
    assert {g["constant_lr"]: g["lr"] for g in optimizer.param_groups} == {
        True: 0.1,
        False: pytest.approx(0.05),
    }


def test_square_root_scaling_is_simclrs() -> None:
    assert peak_lr(OptimConfig(lr=0.075, lr_scaling="sqrt"), batch_size=4096) == pytest.approx(4.8)


def test_lars_leaves_a_zero_tensor_its_plain_step() -> None:
    weight = nn.Parameter(torch.zeros(3, 3))
    optimizer = Lars([{"params": [weight]}], lr=1.0, momentum=0.0, trust_coefficient=1e-3, momentum_lr="outside")
    weight.grad = torch.ones(3, 3)
    optimizer.step()
    assert torch.equal(weight.detach(), -torch.ones(3, 3))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weights_in_channels_last_memory_move_as_any_others(name: str) -> None:
    moved = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)).double().to(memory_format=memory_format)
        x = torch.randn(2, 3, 9, 9, dtype=torch.float64).to(memory_format=memory_format)
        optimizer = build_optimizer(OptimConfig(name=name, lr=0.01, lr_scaling="none"), net, batch_size=2)  # type: ignore[arg-type]
        for _ in range(4):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
        moved.append([weight.detach().contiguous() for weight in net.parameters()])
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


class OnBackbone(nn.Module):
    """Two encoders, as of a method with a student and another trained network, and a head of each schedule."""

    constant_lr = ("predictor.",)

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.encoder = build_encoder(EncoderConfig(backbone, input_hw=(32, 32)))
        self.other = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)))
        self.projector = nn.Linear(self.encoder.feature_dim, 4)
        self.predictor = nn.Linear(4, 4)


def rates(model: nn.Module, config: OptimConfig) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every weight in the middle of a run."""
    optimizer = build_optimizer(config, model, batch_size=256)  # type: ignore[arg-type]
    set_rates(optimizer, config, step=50, steps=100, batch_size=256)
    found = {
        weight: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for weight in group["params"]
    }
    return {name: found[weight] for name, weight in model.named_parameters()}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_layer_decay_gives_timms_rates(name: str, backbone: str) -> None:
    """The oracle of encoders is timm's `param_groups_layer_decay`, which follows BEiT; heads keep their rates."""
    model = OnBackbone(backbone)
    config = OptimConfig(name=name, lr=0.1, layer_decay=0.7, decay="matrices", weight_decay=0.03, bias_lr=0.02)
    got, plain = rates(model, config), rates(model, replace(config, layer_decay=1.0))
    for part in (model.encoder, model.other):
        groups = param_groups_layer_decay(part.backbone, layer_decay=0.7)
        scale = {weight: group["lr_scale"] for group in groups for weight in group["params"]}
        assert len(set(scale.values())) > 4 and max(scale.values()) == 1
        for key, weight in model.named_parameters():
            if weight in scale:
                base = 0.05 * (0.2 if weight.ndim < 2 else 1)
                assert got[key] == (pytest.approx(base * scale[weight]), 0.03 if weight.ndim > 1 else 0.0), key
    heads = [key for key in got if key.startswith(("projector", "predictor"))]
    assert len(heads) == 4 and all(got[key] == plain[key] for key in heads)
    assert got["predictor.weight"][0] == pytest.approx(0.1)


def test_without_layer_decay_the_groups_are_those_of_before() -> None:
    """The order of groups and weights is that of a checkpoint's optimizer state."""
    model = OnBackbone("test_resnet")
    assert len(_param_groups(OptimConfig(decay="matrices"), model)) == 4
    assert {group["lr_factor"] for group in _param_groups(OptimConfig(), model)} == {1.0}
    for wrong in (0.0, -0.5, 1.5):
        with pytest.raises(InputError, match="layer_decay"):
            OptimConfig(layer_decay=wrong)


def test_a_weight_that_gets_its_first_gradient_late_moves_as_by_hand() -> None:
    """A fused SGD of torch refuses a group in which only some weights have a momentum."""
    net = nn.ParameterList([torch.ones(3), torch.ones(3)])
    config = OptimConfig(lr=0.1, lr_scaling="none", momentum=0.5, weight_decay=0.0)
    optimizer = build_optimizer(config, net, batch_size=2)  # type: ignore[arg-type]
    for step in range(3):
        net[0].grad = torch.full((3,), 2.0)
        net[1].grad = torch.full((3,), 4.0) if step else None
        start_momentum(optimizer)
        optimizer.step()
    torch.testing.assert_close(net[0].detach(), torch.full((3,), 1 - 0.1 * (2 + 3 + 3.5)))
    torch.testing.assert_close(net[1].detach(), torch.full((3,), 1 - 0.1 * (4 + 6)))
