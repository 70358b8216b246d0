"""The encoder: names of features, initial weights from every kind of checkpoint, save and load."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms import v2

from robossl.encoders.cards import data_before
from robossl.encoders.encoder import (
    EncoderConfig,
    build_encoder,
    named_outputs,
    read_encoder,
    save_encoder,
    spatial_softmax,
    unused_weights,
)
from robossl.encoders.encoder_files import read_about
from robossl.encoders.weights import read_weights, weights_digest
from robossl.errors import InputError, ResourceError

RESNET = EncoderConfig("test_resnet", input_hw=(64, 96), zero_init_last=False)  # timm's own small test models
VIT = EncoderConfig("test_vit", input_hw=(64, 96))


@pytest.mark.parametrize(
    ("backbone", "dim", "grid", "has_cls"),
    [
        ("resnet18", 512, (2, 3), False),
        ("resnet50", 2048, (2, 3), False),
        ("vit_tiny_patch16_224", 192, (4, 6), True),
        ("vit_small_patch16_224", 384, (4, 6), True),
        ("efficientnet_lite0", 1280, (2, 3), False),
    ],
)
def test_shapes(backbone: str, dim: int, grid: tuple[int, int], has_cls: bool) -> None:
    encoder = build_encoder(EncoderConfig(backbone, input_hw=(64, 96))).eval()
    with torch.no_grad():
        out = encoder(encoder.preprocess(torch.randint(256, (2, 50, 70, 3), dtype=torch.uint8)))
    assert encoder.feature_dim == dim
    assert out.pooled.shape == (2, dim)
    assert out.dense.shape == (2, dim, *grid)
    assert (out.cls is not None and out.cls.shape == (2, dim)) if has_cls else out.cls is None
    torch.testing.assert_close(out.pooled, out.dense.mean((2, 3)))


def test_vit_tokens_lie_on_their_grid_at_any_size() -> None:
    encoder = build_encoder(VIT).eval()
    pixels = torch.randn(2, 3, 32, 80)  # not input_hw: multi-crop
    with torch.no_grad():
        out, tokens = encoder(pixels), encoder.backbone.forward_features(pixels)
    assert out.dense.shape == (2, 64, 2, 5)
    torch.testing.assert_close(out.dense[:, :, 1, 3], tokens[:, 1 + 5 + 3])
    torch.testing.assert_close(out.cls, tokens[:, 0])


def test_preprocess_is_torchvisions_antialiased_resize() -> None:
    encoder = build_encoder(RESNET)
    frames = torch.randint(256, (2, 180, 320, 3), dtype=torch.uint8)
    reference = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((64, 96), antialias=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    torch.testing.assert_close(encoder.preprocess(frames), reference(frames.permute(0, 3, 1, 2)))


def test_spatial_softmax_is_the_expected_position() -> None:
    dense = torch.randn(2, 3, 4, 5)
    expected = torch.zeros(2, 3, 2)
    for b, c in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        weight = dense[b, c].exp() / dense[b, c].exp().sum()
        for y, x in torch.cartesian_prod(torch.arange(4), torch.arange(5)).tolist():
            expected[b, c] += weight[y, x] * torch.tensor([(x + 0.5) / 5 * 2 - 1, (y + 0.5) / 4 * 2 - 1])
    torch.testing.assert_close(spatial_softmax(dense), expected)


def test_spatial_softmax_finds_a_peak() -> None:
    dense = torch.zeros(1, 1, 4, 8)
    dense[0, 0, 0, 7] = 100
    torch.testing.assert_close(spatial_softmax(dense)[0, 0], torch.tensor([7 / 8, -3 / 4]))


@pytest.mark.parametrize(
    ("backbone", "patch"), [("test_vit", 16), ("deit_tiny_distilled_patch16_224", 16), ("eva02_tiny_patch14_224", 14)]
)
@pytest.mark.parametrize("grid", [(2, 3), (6, 8)])
def test_positions_are_resized_as_timm_does_with_a_gradient_that_cuda_can_repeat(
    backbone: str, patch: int, grid: tuple[int, int]
) -> None:
    encoder = build_encoder(EncoderConfig(backbone, input_hw=(4 * patch, 6 * patch))).eval()
    positions = torch.nn.init.normal_(encoder.backbone.pos_embed)
    pixels = torch.randn(2, 3, grid[0] * patch, grid[1] * patch)
    outputs = [encoder(pixels).dense.flatten(2).mT, encoder.backbone.forward_features(pixels)]
    outputs[1] = outputs[1][:, encoder.num_prefix_tokens :]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    assert ["UpsampleBicubic2DAaBackward0" in nodes(out.grad_fn) for out in outputs] == [False, True]
    wanted = torch.randn_like(outputs[1])
    gradients = [torch.autograd.grad((out * wanted).sum(), positions)[0] for out in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4 * float(gradients[1].abs().max()))


def nodes(last: object) -> set[str]:
    """The names of all steps of a backward pass."""
    found, waiting = {last}, [last]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None and node not in found:
                found.add(node)
                waiting.append(node)
    return {node.name() for node in found}


def test_weights_that_no_feature_depends_on_are_found_and_the_encoder_is_left_as_it_was() -> None:
    encoder = build_encoder(EncoderConfig("test_convnext", input_hw=(32, 32))).train()
    assert {id(weight) for weight in unused_weights(encoder)} == {id(w) for w in encoder.backbone.head.parameters()}
    assert encoder.training and all(weight.grad is None for weight in encoder.parameters())
    assert unused_weights(build_encoder(RESNET)) == []
    assert unused_weights(encoder.requires_grad_(False)) == []


def test_settings_reach_the_backbone() -> None:
    assert build_encoder(RESNET).backbone.layer1[0].bn2.weight.all()
    assert not build_encoder(EncoderConfig("test_resnet", zero_init_last=True)).backbone.layer1[0].bn2.weight.any()
    dropping = build_encoder(EncoderConfig("test_vit", input_hw=(32, 32), drop_path=0.9)).train()
    pixels = torch.randn(8, 3, 32, 32)
    assert not torch.equal(dropping(pixels).pooled, dropping(pixels).pooled)


def test_random_init_is_drawn_from_the_global_generator() -> None:
    digests = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        digests.append(weights_digest(build_encoder(RESNET).backbone.state_dict()))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("config", [RESNET, VIT], ids=["resnet", "vit"])
def test_saved_and_loaded_it_is_the_same(config: EncoderConfig, tmp_path: Path) -> None:
    encoder = build_encoder(config).eval()
    save_encoder(encoder, tmp_path / "encoder", extra={"method": "none"})
    save_encoder(encoder, tmp_path / "encoder", extra={"method": "simsiam"})  # over the first
    torch.manual_seed(7)
    loaded = read_encoder(tmp_path / "encoder")
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(1)), "loading leaves the global generator alone"
    assert loaded.config == config
    assert read_about(tmp_path / "encoder")["extra"] == {"method": "simsiam"}
    assert [each.name for each in tmp_path.iterdir()] == ["encoder"], "nothing is left beside it"
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        wanted, got = named_outputs(encoder(pixels)), named_outputs(loaded(pixels))
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_a_disk_that_refuses_keeps_the_encoder_that_is_there(tmp_path: Path) -> None:
    first = build_encoder(RESNET)
    save_encoder(first, tmp_path / "encoder", extra={})
    code = (
        "import resource, sys; from pathlib import Path; from robossl.encoders.encoder import *\n"
        "from robossl.errors import ResourceError\n"
        "encoder = build_encoder(EncoderConfig('test_resnet'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: save_encoder(encoder, Path(sys.argv[1]), extra={})\n"
        "except ResourceError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "encoder")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"could not write {tmp_path / 'encoder'}")
    assert [each.name for each in tmp_path.iterdir()] == ["encoder"]
    loaded = read_encoder(tmp_path / "encoder").backbone.state_dict()
    assert weights_digest(loaded) == weights_digest(first.backbone.state_dict())


def test_folders_that_are_no_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no encoder\.json"):
        read_encoder(tmp_path)
    folder = tmp_path / "encoder"
    save_encoder(build_encoder(RESNET), folder, extra={})
    save_encoder(build_encoder(RESNET), tmp_path / "other", extra={})
    (tmp_path / "other" / "encoder.safetensors").rename(folder / "encoder.safetensors")
    with pytest.raises(InputError, match="digest differs"):
        read_encoder(folder)
    about = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**about, "schema": "robossl.encoder/9"}))
    with pytest.raises(InputError, match=r"'robossl.encoder/9'.*'robossl.encoder/1'"):
        read_encoder(folder)


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    save_encoder(build_encoder(RESNET), folder, extra={})
    weights, about = folder / "encoder.safetensors", folder / "encoder.json"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cannot read encoder\.safetensors"):
        read_encoder(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"cannot read encoder\.safetensors"):
        read_encoder(folder)
    whole = json.loads(about.read_text())
    for text, said in {
        about.read_text()[:100]: r"cannot read .*encoder\.json",
        "[]": r"cannot read .*encoder\.json",
        json.dumps({"schema": whole["schema"]}): "has no config, digest, extra; resume",
        json.dumps(whole | {"config": {"colour": 1}}): "colour",
    }.items():
        about.write_text(text)
        with pytest.raises(InputError, match=said) as caught:
            read_encoder(folder)
        assert "\n" not in str(caught.value)


def test_a_save_ends_in_two_renames_and_sweeps_what_killed_ones_left(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    save_encoder(build_encoder(RESNET), folder, extra={"step": 1})
    (tmp_path / f".encoder.{os.getpid()}.old" / "half").mkdir(parents=True)  # a container gives the same number again
    (tmp_path / ".encoder.2").mkdir()
    killed = (  # at the first removal
        "import os, shutil, sys; from pathlib import Path; from robossl.encoders.encoder import *\n"
        "shutil.rmtree = lambda path, **_: os._exit(9) if Path(path).exists() else None\n"
        "save_encoder(build_encoder(EncoderConfig('test_resnet')), Path(sys.argv[1]), extra={'step': 2})"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(folder)], check=False).returncode == 9
    assert read_about(folder)["extra"] == {"step": 2}
    read_encoder(folder)
    save_encoder(build_encoder(RESNET), folder, extra={"step": 3})
    assert [each.name for each in tmp_path.iterdir()] == ["encoder"]


def _state(config: EncoderConfig) -> dict[str, Tensor]:
    return build_encoder(config).backbone.state_dict()


def _init(config: EncoderConfig, origin: str | Path) -> EncoderConfig:
    return EncoderConfig(config.backbone, init=str(origin), input_hw=config.input_hw)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder.backbone."])
def test_timm_checkpoints_load_under_any_prefix(prefix: str, tmp_path: Path) -> None:
    state = _state(RESNET)
    file = {f"{prefix}{name}": value for name, value in state.items()} | {f"{prefix}fc.weight": torch.ones(3, 96)}
    if prefix:
        file["head.0.weight"] = torch.ones(2, 2)
    torch.save({"state_dict": file, "epoch": 3, "optimizer": {"state": {0: torch.ones(1)}}}, tmp_path / "a.pt")
    loaded = build_encoder(_init(RESNET, tmp_path / "a.pt"))
    assert weights_digest(loaded.backbone.state_dict()) == weights_digest(state)


def test_torchvision_resnet_gives_torchvisions_features(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    encoder = build_encoder(EncoderConfig("resnet18", init=str(tmp_path / "a.pth"), input_hw=(64, 64))).eval()
    theirs.fc = torch.nn.Identity()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels).pooled, theirs(pixels), rtol=1e-4, atol=1e-5)


def test_torchvision_vit_gives_torchvisions_features(tmp_path: Path) -> None:
    theirs = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=6, num_heads=2, hidden_dim=64, mlp_dim=192
    ).eval()
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    config = EncoderConfig("test_vit", init=str(tmp_path / "a.safetensors"), input_hw=(64, 64))
    encoder = build_encoder(config).eval()
    theirs.heads = torch.nn.Identity()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels).cls, theirs(pixels), rtol=1e-4, atol=1e-5)


def test_own_folders_and_other_sizes_load(tmp_path: Path) -> None:
    source = build_encoder(EncoderConfig("test_vit", input_hw=(96, 96)))
    save_encoder(source, tmp_path / "run" / "encoder", extra={})
    for place in (tmp_path / "run", tmp_path / "run" / "encoder"):
        loaded = build_encoder(EncoderConfig("test_vit", init=str(place), input_hw=(64, 96)))
        assert loaded.backbone.pos_embed.shape[1] == 1 + 4 * 6, "position embeddings are resampled"
        torch.testing.assert_close(loaded.backbone.cls_token, source.backbone.cls_token)


def test_one_of_several_encoders_is_chosen_by_name(tmp_path: Path) -> None:
    student, teacher = _state(RESNET), _state(RESNET)
    file = tmp_path / "dino.pt"
    torch.save(
        {
            "student": {f"module.backbone.{name}": value for name, value in student.items()},
            "teacher": {f"backbone.{name}": value for name, value in teacher.items()},
        },
        file,
    )
    with pytest.raises(InputError, match=r"dino.pt#student.module.backbone or .*dino.pt#teacher.backbone"):
        build_encoder(_init(RESNET, file))
    loaded = build_encoder(_init(RESNET, f"{file}#teacher"))
    assert weights_digest(loaded.backbone.state_dict()) == weights_digest(teacher)
    with pytest.raises(InputError, match="no key under 'techer'"):
        build_encoder(_init(RESNET, f"{file}#techer"))


def test_a_path_may_hold_a_number_sign(tmp_path: Path) -> None:
    (tmp_path / "exp#1").mkdir()
    file, state = tmp_path / "exp#1" / "a.pt", {"one.w": torch.ones(1), "two.w": torch.zeros(1)}
    torch.save(state, file)
    assert read_weights(str(file)).keys() == state.keys()
    assert read_weights(f"{file}#two") == {"w": state["two.w"]}
    save_encoder(
        build_encoder(RESNET), tmp_path / "exp#1" / "run" / "encoder", extra={"data": [], "start_recorded": True}
    )
    for init in (str(tmp_path / "exp#1" / "run"), f"{tmp_path / 'exp#1' / 'run'}#layer1"):
        assert data_before(init) == ([], True)


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    state = _state(RESNET)
    del state["bn1.bias"], state["conv1.0.weight"]
    state["bn9.bias"] = torch.ones(1)
    state["bn1.weight"] = torch.ones(5)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(InputError) as caught:
        build_encoder(_init(RESNET, tmp_path / "a.pt"))
    message = str(caught.value)
    assert "2 missing keys (conv1.0.weight, bn1.bias)" in message
    assert "1 unexpected (bn9.bias)" in message
    assert "1 of another shape (bn1.weight (5,) instead of" in message


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "model": _state(RESNET)}, tmp_path / "object.pt")
    torch.save(_state(RESNET), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "object.pt": "holds more than tensors",
        "cut.pt": "cannot be read",
        "text.pt": "text.pt",
        "text.safetensors": "cannot be read",
        "empty.pt": "cannot be read",
        "folder": r"no \.safetensors",
        "absent.pt": "no checkpoint at",
    }.items():
        with pytest.raises(InputError, match=reason):
            build_encoder(_init(RESNET, tmp_path / name))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_checkpoints_are_refused_in_one_line(zipped: bool, tmp_path: Path) -> None:
    path, draw = tmp_path / "a.pt", np.random.default_rng(0)
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in draw.integers(len(whole), size=3):
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged)
        try:
            read_weights(str(path))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'resnet81'; nearest: resnet18"):
        build_encoder(EncoderConfig("resnet81"))
    with pytest.raises(InputError, match=r"\(60, 96\).*16x16 patches"):
        build_encoder(EncoderConfig("test_vit", input_hw=(60, 96)))
    with pytest.raises(InputError, match=r"unknown weights 'resnet18.x'; choose resnet18, resnet18.a1_in1k"):
        build_encoder(EncoderConfig("resnet18.x", init="timm"))
    with pytest.raises(InputError, match="hub has no weights for 'nf_resnet26'"):
        build_encoder(EncoderConfig("nf_resnet26", init="timm"))


def test_an_unreachable_hub_is_one_line(tmp_path: Path) -> None:
    code = (
        "from robossl.encoders.encoder import *; from robossl.errors import *\n"
        "try: build_encoder(EncoderConfig('resnet18', init='timm'))\n"
        "except ResourceError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot download timm's weights for 'resnet18'")
    assert done.stdout.count("\n") == 1
    assert issubclass(ResourceError, OSError)
