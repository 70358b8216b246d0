"""Backbones: every family of timm gives an upright map of the channels it states, or is refused in one line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robossl.encoders.backbones import build_backbone
from robossl.encoders.encoder import Encoder, EncoderConfig, build_encoder
from robossl.errors import InputError

TOKENS = (  # families whose features come as a row of tokens, some with no patch size to divide by
    "xcit_nano_12_p16_224",
    "vit_tiny_r_s16_p8_224",
    "efficientformer_l1",
    "mixer_s32_224",
    "mvitv2_tiny",
    "mvitv2_base_cls",
    "twins_svt_small",
    "hiera_tiny_224",
    "naflexvit_base_patch16_gap",
    "resmlp_12_224",
    "gmlp_ti16_224",
    "tnt_s_patch16_224",
    "volo_d1_224",
    "test_vit",
    "test_vit2",
)
NO_MAP = ("pit_ti_224", "pit_s_distilled_224", "crossvit_tiny_240", "coat_lite_tiny")
MAPS = ("test_resnet", "test_convnext", "swin_tiny_patch4_window7_224", "hieradet_small", "convformer_s18")
OTHERS = (
    "test_vit3",
    "test_vit4",
    "test_efficientnet",
    "test_byobnet",
    "test_nfnet",
    "test_mambaout",
    "swinv2_cr_tiny_ns_224",
    "mobilevit_xxs",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "cait_xxs24_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "eva02_tiny_patch14_224",
    "flexivit_small",
    "vit_small_patch16_dinov3",
    "vit_small_patch14_reg4_dinov2",
    "coatnet_nano_rw_224",
    "poolformer_s12",
    "edgenext_xx_small",
    "hrnet_w18_small",
    "ghostnet_050",
    "rexnet_100",
    "regnetx_002",
    "densenet121",
    "inception_next_atto",
    "fastvit_t8",
    "repvit_m0_9",
    "tiny_vit_5m_224",
    "nest_tiny",
    "pvt_v2_b0",
    "visformer_tiny",
    "sequencer2d_s",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "davit_tiny",
    "beit_base_patch16_224",
    "vit_base_patch16_siglip_224",
    "ecaresnet50d_pruned",
    "resnetv2_50",
    "dla34",
    "efficientvit_b0",
    "convit_tiny",
    "vitamin_small_224",
    "samvit_base_patch16_224",
    "maxvit_tiny_rw_224",
    "vgg11",
    "vit_relpos_small_patch16_224",
    "nextvit_small",
    "shvit_s1",
    "selecsls42",
    "starnet_s1",
    "swiftformer_xs",
)


def build(name: str) -> Encoder:
    torch.manual_seed(0)
    side = 240 if name.endswith("240") else 224
    encoder = build_encoder(EncoderConfig(name, input_hw=(side, side), zero_init_last=False)).eval()
    for weight in encoder.parameters():
        if not weight.any() and weight.ndim == 1:  # a branch that starts at 0 says nothing of where it looks
            nn.init.normal_(weight, std=0.5)
    return encoder


def check_map(encoder: Encoder) -> None:
    """Channels as stated, pooled their mean, and each corner of the map sees its own corner of the frame most."""
    height, width = encoder.config.input_hw
    a = height // 3
    frames = torch.randn(1, 3, height, width).repeat(4, 1, 1, 1)
    corners = [(slice(a), slice(a)), (slice(a), slice(-a, None)), (slice(-a, None), slice(a))]
    for frame, (rows, columns) in zip(frames[1:], corners, strict=True):
        frame[:, rows, columns] = torch.randn(3, a, a)
    with torch.no_grad():
        out = encoder(frames)
    assert out.dense.shape[:2] == (4, encoder.feature_dim)
    assert out.pooled.shape == (4, encoder.feature_dim)
    torch.testing.assert_close(out.pooled, out.dense.mean((2, 3)), rtol=1e-3, atol=1e-3)
    moved = (out.dense[1:] - out.dense[:1]).abs().mean(1)
    size = max(1, moved.shape[1] // 3)
    for i, each in enumerate(moved):
        seen = [float(each[rows, columns].mean()) for rows, columns in corners_of(size)]
        assert seen.index(max(seen)) == i, f"corner {i} of {encoder.config.backbone}: {seen}"


def corners_of(size: int) -> list[tuple[slice, slice]]:
    first, last = slice(size), slice(-size, None)
    return [(first, first), (first, last), (last, first), (last, last)]


@pytest.mark.parametrize("name", TOKENS + MAPS)
def test_maps_are_upright_and_have_the_channels_stated(name: str) -> None:
    check_map(build(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_maps_of_further_families_too(name: str) -> None:
    check_map(build(name))


def test_levit_has_a_grid() -> None:
    """Untrained, its attention is even over the frame: no place of its map says which corner it sees."""
    encoder = build("levit_128s")
    with torch.no_grad():
        out = encoder(torch.randn(2, 3, 224, 224))
    assert out.dense.shape == (2, encoder.feature_dim, 4, 4)


@pytest.mark.parametrize("name", NO_MAP)
def test_a_backbone_without_a_map_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} gives .*, not a map of .*; choose another backbone") as caught:
        build(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["mixer_s32_224", "levit_128s", "vit_tiny_r_s16_p8_224", "swin_tiny_patch4_window7_224", "cait_xxs24_224"]
)
def test_a_backbone_of_one_size_says_it(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} takes no frames .* 96x160 .*; set it to \[224, 224\]") as caught:
        build_encoder(EncoderConfig(name, input_hw=(96, 160)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["mvitv2_tiny", "twins_svt_small", "xcit_nano_12_p16_224", "naflexvit_base_patch16_gap"]
)
def test_a_backbone_of_any_size_has_the_grid_of_the_frame(name: str) -> None:
    encoder = build_encoder(EncoderConfig(name, input_hw=(96, 160))).eval()
    with torch.no_grad():
        height, width = encoder(torch.randn(1, 3, 96, 160)).dense.shape[2:]
    assert height / width == 96 / 160


@pytest.mark.parametrize("name", ["vgg11", "densenet121"])
def test_drop_path_where_there_is_none_to_drop_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"timm cannot build {name} with encoder\.drop_path 0\.1 .*; change that"):
        build_backbone(name, input_hw=(64, 64), zero_init_last=True, drop_path=0.1)


def test_trying_a_frame_draws_nothing_and_leaves_the_mode() -> None:
    after = []
    for build_it in (
        lambda: build_encoder(EncoderConfig("test_vit", drop_path=0.5)),
        lambda: build_backbone("test_vit", input_hw=(224, 224), zero_init_last=True, drop_path=0.5),
    ):
        torch.manual_seed(3)
        assert build_it().training
        after.append(torch.rand(1))
    assert torch.equal(*after)
