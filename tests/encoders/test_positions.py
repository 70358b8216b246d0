"""Positions: tokens lie on the grid of their frame, and a checkpoint's position embeddings stay where they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from robossl.encoders.encoder import Encoder, EncoderConfig, build_encoder, read_encoder, save_encoder
from robossl.encoders.positions import token_grid
from robossl.errors import InputError

HW = tuple[int, int]


def places(h: int, w: int) -> torch.Tensor:
    """Where the patches of a grid lie in the frame: (x, y) of each, row by row."""
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack([x, y], -1)


def saying_where(hw: HW, backbone: str = "test_vit") -> Encoder:
    """An encoder whose position embeddings say in two channels where each patch lies."""
    encoder = build_encoder(EncoderConfig(backbone, input_hw=hw))
    h, w = encoder.backbone.patch_embed.grid_size
    with torch.no_grad():
        encoder.backbone.pos_embed[0, -h * w :, :2] = places(h, w).reshape(-1, 2)
    return encoder


def off(encoder: Encoder) -> float:
    """How far off the patches are that the embeddings say, in frames; a resize blurs the border."""
    h, w = encoder.backbone.patch_embed.grid_size
    said = encoder.backbone.pos_embed.detach()[0, -h * w :, :2].reshape(h, w, 2)
    return float((said - places(h, w)).abs()[1:-1, 1:-1].max())


def started_from(init: object, hw: HW, backbone: str = "test_vit", *, init_hw: HW | None = None) -> Encoder:
    return build_encoder(EncoderConfig(backbone, input_hw=hw, init=str(init), init_hw=init_hw))


@pytest.mark.parametrize("rows", range(1, 30, 4))
@pytest.mark.parametrize("columns", range(1, 40, 3))
def test_tokens_of_whole_patches_have_the_grid_of_the_frame(rows: int, columns: int) -> None:
    for patch in (8, 14, 16, 32):
        assert token_grid(rows * columns, (rows * patch, columns * patch)) == (rows, columns)


def test_tokens_that_are_no_grid_of_the_frame_have_none() -> None:
    assert token_grid(144, (144, 256)) == (9, 16)
    assert token_grid(144, (192, 192)) == (12, 12)
    assert token_grid(144, (150, 260)) == (9, 16), "a border narrower than a patch is left over"
    assert token_grid(32, (144, 256)) == (4, 8)
    for num in (0, 1 + 196, 50, 143):
        assert token_grid(num, (224, 224)) is None, num


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((144, 256), (192, 192)),  # as many patches on another grid
        ((144, 256), (224, 224)),
        ((144, 256), (144, 256)),
        ((144, 256), (176, 320)),
        ((64, 144), (96, 96)),
        ((96, 160), (224, 224)),  # 60 patches are no square
        ((224, 224), (144, 256)),
        ((192, 192), (144, 256)),  # as many patches, from a square
        ((256, 144), (144, 256)),  # as many patches, lying down
        ((160, 96), (192, 192)),
        ((96, 384), (192, 192)),  # 144 patches once more
    ],
)
@pytest.mark.parametrize("backbone", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_positions_of_our_own_encoders_stay_where_they_were(
    source: HW, target: HW, backbone: str, tmp_path: Path
) -> None:
    save_encoder(saying_where(source, backbone), tmp_path / "run" / "encoder", extra={})
    assert off(started_from(tmp_path / "run", target, backbone)) < 0.05
    assert off(read_encoder(tmp_path / "run" / "encoder")) == 0


@pytest.mark.parametrize("backbone", ["deit3_small_patch16_224", "test_vit2", "flexivit_small"])
def test_positions_stay_whatever_stands_before_the_patches(backbone: str, tmp_path: Path) -> None:
    """A class token without a position, a register with one and no class token."""
    save_encoder(saying_where((144, 256), backbone), tmp_path / "encoder", extra={})
    assert off(started_from(tmp_path / "encoder", (192, 192), backbone)) < 0.05


def test_the_files_of_a_run_say_their_grid_too(tmp_path: Path) -> None:
    source = saying_where((144, 256))
    save_encoder(source, tmp_path / "run" / "encoder", extra={})
    step = tmp_path / "run" / "checkpoints" / "step_00000003"
    step.mkdir(parents=True)
    save_file(
        {f"encoder.backbone.{k}": v for k, v in source.backbone.state_dict().items()}, step / "method.safetensors"
    )
    for init in (tmp_path / "run/encoder/encoder.safetensors", step / "method.safetensors", step, f"{step}#encoder"):
        assert off(started_from(init, (192, 192))) < 0.05, init


def test_a_bare_file_of_a_square_number_is_square_and_can_be_told_otherwise(tmp_path: Path) -> None:
    for name, hw in {"square": (192, 192), "wide": (144, 256)}.items():
        torch.save(saying_where(hw).backbone.state_dict(), tmp_path / f"{name}.pth")
    for target in ((64, 96), (224, 224), (192, 192)):
        assert off(started_from(tmp_path / "square.pth", target)) < 0.06
        assert off(started_from(tmp_path / "wide.pth", target, init_hw=(144, 256))) < 0.06
    for name, init_hw in {"square": (192, 192), "wide": (144, 256)}.items():
        with pytest.raises(
            InputError, match=r"144 patches, either 12x12 or 9x16; set encoder.init_hw to the input size"
        ):
            started_from(tmp_path / f"{name}.pth", (144, 256))
        assert off(started_from(tmp_path / f"{name}.pth", (144, 256), init_hw=init_hw)) < 0.05


def test_a_bare_file_of_no_square_number_fits_its_own_grid_or_must_be_told(tmp_path: Path) -> None:
    torch.save(saying_where((96, 160)).backbone.state_dict(), tmp_path / "a.pth")
    assert off(started_from(tmp_path / "a.pth", (96, 160))) == 0
    with pytest.raises(
        InputError, match=r"a\.pth holds positions of 60 patches, which make no square; set encoder\.init_hw"
    ):
        started_from(tmp_path / "a.pth", (224, 224))
    with pytest.raises(InputError, match=r"60 patches, which frames of 224x224 are not cut into; set encoder\.init_hw"):
        started_from(tmp_path / "a.pth", (224, 224), init_hw=(224, 224))
    assert off(started_from(tmp_path / "a.pth", (224, 224), init_hw=(96, 160))) < 0.05
    with pytest.raises(InputError, match="init is random; leave it out"):
        EncoderConfig("test_vit", init_hw=(96, 160))


def test_another_number_of_tokens_before_the_patches_is_named(tmp_path: Path) -> None:
    state = saying_where((192, 192)).backbone.state_dict()
    positions = state["pos_embed"]
    torch.save(state | {"pos_embed": positions[:, 1:]}, tmp_path / "none.pth")
    torch.save(state | {"pos_embed": torch.cat([positions[:, :1], positions], 1)}, tmp_path / "two.pth")
    for name, said in {"none": "144 positions: 0 tokens", "two": "146 positions: 2 tokens"}.items():
        with pytest.raises(InputError, match=f"{said} before 12x12 patches, where this backbone has 1"):
            started_from(tmp_path / f"{name}.pth", (224, 224))


@pytest.mark.parametrize("init_hw", [(256, 256), (192, 192 * 4), (9, 16), (72, 128)])
def test_a_wrong_input_size_is_refused_by_the_patches_it_would_make(init_hw: HW, tmp_path: Path) -> None:
    torch.save(saying_where((144, 256)).backbone.state_dict(), tmp_path / "a.pth")
    h, w = init_hw
    with pytest.raises(InputError, match=f"144 patches, which frames of {h}x{w} are not cut into"):
        started_from(tmp_path / "a.pth", (224, 224), init_hw=init_hw)
    assert off(started_from(tmp_path / "a.pth", (224, 224), init_hw=(150, 260))) < 0.06, "a border is left over"
