"""Attention: the weights are timm's, the masks hold their share, and the command draws every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robossl.cli.main import main
from robossl.data.store import Store
from robossl.encoders.attention import (
    check_zoom,
    class_attention,
    draw_sheet,
    encoder_pixels,
    heaviest_patches,
    last_attention,
)
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError
from robossl.exporting.parity import natural_frames

TINY = EncoderConfig("test_vit", input_hw=(64, 96))


def vit(config=TINY):
    torch.manual_seed(0)
    return build_encoder(config).eval()


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit2", "vit_tiny_patch16_224"])
def test_rows_sum_to_one_and_are_timm_s_unfused_weights(backbone):
    encoder = vit(EncoderConfig(backbone, input_hw=(64, 96)))
    attend = encoder.backbone.blocks[-1].attn
    pixels = torch.randn(2, 3, 64, 96)
    ours = last_attention(encoder, pixels)
    assert not attend._forward_pre_hooks
    torch.testing.assert_close(ours.sum(-1), torch.ones(ours.shape[:-1]))
    seen = []
    attend.fused_attn = False
    attend.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        encoder(pixels)
    torch.testing.assert_close(ours, seen[0], rtol=1e-5, atol=1e-6)
    assert ours.std(-1).max() > 1e-6


def test_maps_lie_on_the_grid_of_patches_and_sum_to_one():
    encoder = vit()
    maps = class_attention(encoder, torch.randn(2, 3, 64, 96))
    patch = encoder.backbone.patch_embed.patch_size[0]
    assert maps.shape == (2, encoder.backbone.blocks[-1].attn.num_heads, 64 // patch, 96 // patch)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(maps.shape[:2]))


def test_zoom_makes_more_patches_of_the_same_frame():
    encoder, frame = vit(), natural_frames(1, (60, 80), seed=0)[0]
    plain, fine = (encoder_pixels(encoder, frame, zoom=zoom) for zoom in (1, 2))
    torch.testing.assert_close(plain, encoder.preprocess(torch.from_numpy(frame)[None]))
    assert class_attention(encoder, fine).shape[-1] == 2 * class_attention(encoder, plain).shape[-1]


def test_a_mask_is_the_fewest_patches_that_hold_the_share():
    weights = np.array([[0.4, 0.1], [0.3, 0.2]])
    assert heaviest_patches(weights, 0.6).tolist() == [[True, False], [True, False]]
    assert heaviest_patches(weights, 0.4).tolist() == [[True, False], [False, False]]
    assert heaviest_patches(weights, 1.0).all()
    many = np.random.default_rng(0).random((9, 7))
    chosen = heaviest_patches(many, 0.6)
    held = many[chosen].sum() / many.sum()
    assert 0.6 <= held < 0.6 + many[chosen].min() / many.sum()
    assert many[chosen].min() >= many[~chosen].max()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "arm"
    save_encoder(vit(), folder / "encoder", extra={})
    return folder


def test_the_command_draws_rows_and_spaced_frames_of_a_store(run: Path, clip_store: Store, tmp_path: Path) -> None:
    argv = ["attention", str(run), "--store", str(clip_store.path), "--out", str(tmp_path / "maps")]
    assert main([*argv, "--rows", "3", "1"]) == 0
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert [name[:4] for name in names] == ["000_", "001_"]
    with Image.open(tmp_path / "maps" / names[0]) as picture:
        assert picture.width > 3 * picture.height / 2
        assert len(set(picture.convert("L").resize((60, 30)).tobytes())) > 20
    argv[-1] = str(tmp_path / "spaced")
    assert main([*argv, "--num-frames", "3"]) == 0
    assert len(list((tmp_path / "spaced").iterdir())) == 3


def test_the_command_draws_images(run: Path, tmp_path: Path) -> None:
    Image.fromarray(natural_frames(1, (40, 60), seed=1)[0]).save(tmp_path / "a b.png")
    out = tmp_path / "out"
    assert main(["attention", str(run / "encoder"), str(tmp_path / "a b.png"), "--out", str(out), "--zoom", "2"]) == 0
    assert [path.name for path in out.iterdir()] == ["000_a_b.png"]


def test_names_are_no_formulas_and_no_frame_is_too_tall(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    draw_sheet(path, "cost_$5_and_$6.png", np.zeros((4000, 8, 3), np.uint8), np.full((2, 3, 4), 1 / 12))
    with Image.open(path) as picture:
        assert picture.height < 4 * picture.width
    assert [each.name for each in tmp_path.iterdir()] == ["sheet.png"]


def test_a_zoom_is_bounded_by_what_attention_takes() -> None:
    encoder = vit()  # 4x6 patches
    check_zoom(encoder, 16)
    with pytest.raises(InputError, match="zoom 100000 makes 240000000000 patches of a frame; zoom up to 16"):
        check_zoom(encoder, 100_000)


def test_what_cannot_be_drawn_is_one_line(
    run: Path, clip_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64))), tmp_path / "cnn", extra={})
    store, out = ["--store", str(clip_store.path)], ["--out", str(tmp_path / "out")]
    for arguments, message in [
        ([str(tmp_path / "cnn"), *store], "test_resnet has no class token with plain self-attention"),
        ([str(tmp_path), *store], "is no encoder"),
        ([str(run)], "pass either images or --store"),
        ([str(run), "x.png", *store], "pass either images or --store"),
        ([str(run), *store, "--rows", "999999"], "rows [999999] are not in the store"),
        ([str(run), *store, "--mass", "1.5"], "mass must lie in 0 to 1"),
    ]:
        assert main(["attention", *arguments, *out]) == InputError.exit_code
        captured = capsys.readouterr().err
        assert captured.startswith("robossl: ")
        assert captured.count("\n") == 1
        assert message in captured
    assert not (tmp_path / "out").exists()
