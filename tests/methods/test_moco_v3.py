"""MoCo v3 beyond what test_methods.py asks of every method: transformers above all."""

from __future__ import annotations

import math

import pytest
import torch
from methods_kit import SIZE, build, configured, make_batch, reference, train_twice
from pytorch_metric_learning.losses import NTXentLoss
from torch import nn

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.methods.moco_v3 import MoCoV3Config, contrast

VIT = EncoderConfig(backbone="test_vit", input_hw=(SIZE, 2 * SIZE))  # a grid of 2 x 4


def on_transformer(**words):
    torch.manual_seed(0)
    return configured("moco_v3", **words).build(build_encoder(VIT))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"temperature": -1.0}, r"temperature must be positive, got -1.0"),
        ({"momentum": 2.0}, r"momentum must lie in 0 to 1, got 2.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        MoCoV3Config(**words)


@pytest.mark.parametrize("setting", ["freeze_patch_projection", "fixed_positions", "xavier"])
def test_a_transformer_s_settings_are_refused_elsewhere(setting):
    with pytest.raises(InputError, match=rf"method\.{setting} needs a vision transformer, got test_resnet"):
        build(configured("moco_v3", **{setting: True}))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_loss_equals_metric_learning_times_two_tau(temperature):
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(7, 16, generator=draw, dtype=torch.float64) for _ in "qk")
    pairs = torch.arange(7)
    rows, columns = (~torch.eye(7, dtype=torch.bool)).nonzero().unbind(1)
    peer = NTXentLoss(temperature=temperature)
    theirs = peer(q, None, indices_tuple=(pairs, pairs, rows, columns), ref_emb=k)
    assert abs(contrast(q, k, first=0, temperature=temperature) - 2 * temperature * theirs) < 1e-12


def test_loss_is_the_paper_s_once_the_copy_differs():
    method = build(configured("moco_v3"))
    train_twice(method, method)
    batch = make_batch(method, seed=5)
    assert method(batch).value.item() == pytest.approx(reference("moco_v3").loss(method, batch), abs=1e-12)


def test_key_encoder_follows_after_the_step_by_half_a_cosine():
    method = build(configured("moco_v3"))
    train_twice(method, method)
    before = [weight.clone() for weight in method.keys.parameters()]
    method.after_step(0.25)
    m = 1 - (1 - 0.9) * (math.cos(math.pi * 0.25) + 1) / 2
    students = [*method.encoder.parameters(), *method.projector.parameters()]
    for old, student, key in zip(before, students, method.keys.parameters(), strict=True):
        torch.testing.assert_close(key, m * old + (1 - m) * student)


def test_heads_depend_on_the_backbone_as_in_the_official_code():
    def shape(head):
        return [layer.affine if isinstance(layer, nn.BatchNorm1d) else layer.bias for layer in head if is_layer(layer)]

    def is_layer(layer):
        return isinstance(layer, nn.BatchNorm1d | nn.Linear)

    resnet, vit = build(configured("moco_v3")), on_transformer()
    assert shape(resnet.projector) == [None, True, None, False]
    assert shape(resnet.predictor) == [None, True, None]
    assert shape(vit.projector) == [None, True, None, True, None, False]
    assert shape(vit.predictor) == [None, True, None, False]


def test_a_transformer_s_patch_projection_and_positions_stay_and_all_else_trains():
    method = on_transformer()
    backbone = method.encoder.backbone
    before = {name: weight.clone() for name, weight in backbone.named_parameters()}
    train_twice(method, method)
    frozen = {name for name, weight in backbone.named_parameters() if torch.equal(before[name], weight)}
    assert frozen == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert not any(backbone.get_parameter(name).requires_grad for name in frozen)
    free = on_transformer(freeze_patch_projection=False, fixed_positions=False)
    assert all(weight.requires_grad for weight in free.encoder.parameters())
    assert not torch.equal(free.encoder.backbone.pos_embed, backbone.pos_embed)


def test_positions_are_sines_and_cosines_of_x_and_y():
    positions = on_transformer().encoder.backbone.pos_embed[0]
    dim, width = positions.shape[1], 4
    assert not positions[0].any()  # of the class token
    for place in range(2 * width):
        y, x = divmod(place, width)
        angles = [10000 ** -(i / (dim // 4)) for i in range(dim // 4)]
        expected = [f(at * angle) for at in (x, y) for f in (math.sin, math.cos) for angle in angles]
        torch.testing.assert_close(positions[1 + place], torch.tensor(expected))


def test_weights_are_xavier_s_with_query_key_and_value_apart():
    backbone = on_transformer().encoder.backbone
    d = backbone.embed_dim
    attention = backbone.blocks[0].attn.qkv
    assert attention.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (d + d)), rel=0.01)
    assert not attention.bias.any()
    hidden = backbone.blocks[0].mlp.fc1
    bound = math.sqrt(6 / (hidden.in_features + hidden.out_features))
    assert hidden.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    patches = backbone.patch_embed.proj.weight
    assert patches.abs().max().item() == pytest.approx(math.sqrt(6 / (3 * 16 * 16 + d)), rel=0.01)


def test_given_weights_of_a_transformer_are_kept(tmp_path):
    from safetensors.torch import save_file

    given = build_encoder(VIT).backbone.state_dict()
    save_file(given, tmp_path / "weights.safetensors")
    config = EncoderConfig(backbone="test_vit", input_hw=VIT.input_hw, init=str(tmp_path / "weights.safetensors"))
    kept = configured("moco_v3").build(build_encoder(config)).encoder.backbone.state_dict()
    assert all(torch.equal(given[name], kept[name]) for name in given)


def test_feature_is_the_class_token_or_the_pooled_one():
    for class_token in (True, False):
        method = on_transformer(class_token=class_token)
        batch = make_batch(method, b=4)
        features = method.encoder(batch.views[0].pixels)
        expected = method.predictor(method.projector(features.cls if class_token else features.pooled))
        torch.testing.assert_close(method(batch).outputs[0], expected.detach())
