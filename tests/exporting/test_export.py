"""Export: the graph follows torch at any batch and frame size, and what is damaged or mismatched is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from places import ROOT
from robossl_client.card import EncoderCard

from robossl.cli.main import main
from robossl.data.store import Store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.find import find_model
from robossl.encoders.inference import OnnxEncoder, load_encoder
from robossl.encoders.onnx_session import file_sha256, open_session
from robossl.encoders.run_session import session_runner
from robossl.errors import InputError, RobosslError
from robossl.exporting.export import export, verify_export
from robossl.exporting.onnx_graph import FixedResize
from robossl.exporting.parity import GATES, ParityError, check_parity, natural_frames
from robossl.exporting.triton_layout import choose_version

INPUT_HW = (64, 96)


def _save(run: Path, backbone: str, *, gain: float = 1.0) -> Path:
    torch.manual_seed(3)
    # with zero_init_last half of a random ResNet is dead, and parity would not see it
    encoder = build_encoder(EncoderConfig(backbone, input_hw=INPUT_HW, zero_init_last=False))
    with torch.no_grad():
        next(encoder.parameters()).mul_(gain)
    save_encoder(encoder, run / "encoder", extra={"method": "simsiam", "step": 4, "data": []})
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of ResNet-18 and of timm's smallest ResNet and ViT; tracing takes a second a block."""
    folder = tmp_path_factory.mktemp("runs")
    names = {"resnet": "resnet18", "vit": "test_vit", "small": "test_resnet"}
    return {name: _save(folder / name, backbone) for name, backbone in names.items()}


@pytest.fixture(scope="module")
def models(runs: dict[str, Path], clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Version folders: dynamic ResNet and ViT, a fixed size, half precision by the command line."""
    out = tmp_path_factory.mktemp("models")
    half = ["--name", "half", "--precision", "fp16", "--store", str(clip_store_path)]
    assert main(["export", str(runs["vit"]), "--out", str(out), *half]) == 0
    return {
        "resnet": export(runs["resnet"], out=out),
        "vit": export(runs["vit"], out=out, outputs=("pooled", "cls", "keypoints", "dense")),
        "fixed": export(runs["small"], out=out, name="fixed", version=3, fixed_hw=(97, 131)),
        "half": out / "half" / "1",
        "one": export(runs["small"], out=out, name="one", fixed_hw=(97, 131), fixed_batch=2),
    }


@pytest.fixture
def copied(models: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a version folder to damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(models[name], tmp_path / name / "1"))

    return copy


@pytest.mark.parametrize("hw", [(96, 96), (180, 320), (97, 131), (20, 31), (64, 96), (1, 1)])
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_it_follows_torch_at_any_size(
    name: str, hw: tuple[int, int], runs: dict[str, Path], models: dict[str, Path]
) -> None:
    reference, exported = load_encoder(runs[name]), load_encoder(models[name].parent)
    assert isinstance(exported, OnnxEncoder)
    for batch in (1, 4):
        frames = natural_frames(batch, hw, seed=batch)
        wanted, got = reference(frames), exported(frames)
        assert got.keys() == wanted.keys() == exported.card.outputs.keys()
        for output in wanted:
            assert got[output].shape == (batch, *exported.card.outputs[output].shape[1:])
            np.testing.assert_allclose(got[output], wanted[output], atol=2e-4)


def test_the_fixed_graph_has_no_resize_and_takes_its_size_only(runs: dict[str, Path], models: dict[str, Path]) -> None:
    operators = {node.op_type for node in onnx.load(models["fixed"] / "model.onnx").graph.node}
    assert "Resize" not in operators
    reference, exported = load_encoder(runs["small"]), load_encoder(models["fixed"].parent)
    frames = natural_frames(3, (97, 131), seed=1)
    np.testing.assert_allclose(exported(frames)["dense"], reference(frames)["dense"], atol=2e-4)
    with pytest.raises(InputError, match=r"takes frames of 97x131 only"):
        exported(natural_frames(1, (97, 130), seed=1))


@pytest.mark.parametrize(("source", "target"), [((97, 131), (64, 96)), ((20, 30), (64, 96)), ((64, 96), (64, 96))])
def test_resize_as_products_is_the_antialiased_resize(source: tuple[int, int], target: tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, *source)
    wanted = torch.nn.functional.interpolate(pixels, target, mode="bilinear", antialias=True)
    torch.testing.assert_close(FixedResize(source, target)(pixels), wanted, rtol=1e-5, atol=1e-5)


def test_half_precision_is_smaller_and_close(runs: dict[str, Path], models: dict[str, Path]) -> None:
    card = EncoderCard.read(models["half"] / "card.json")
    assert card.precision == "fp16"
    assert card.parity is not None
    assert 0.999 <= min(each.centred_cosine for each in card.parity.outputs.values()) < 1 - 1e-9, "weights were rounded"
    bytes_fp32 = (runs["vit"] / "encoder" / "encoder.safetensors").stat().st_size
    assert (models["half"] / "model.onnx").stat().st_size < 0.8 * bytes_fp32


@pytest.mark.parametrize("name", ["resnet", "vit", "fixed", "half"])
def test_the_folder_is_a_triton_repository_with_a_card(
    name: str, runs: dict[str, Path], models: dict[str, Path]
) -> None:
    folder = models[name]
    card = verify_export(folder)
    assert verify_export(folder.parent) == card
    assert {each.name for each in folder.iterdir()} == {"model.onnx", "card.json"}
    assert {each.name for each in folder.parent.iterdir()} == {"config.pbtxt", folder.name}
    assert (card.name, str(card.version)) == (folder.parent.name, folder.name)
    assert card.method == "simsiam"
    assert card.parity is not None
    assert card.parity.outputs.keys() == card.outputs.keys()
    assert card.parity.batches == (1, 3, 5)
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [each.version for each in model.opset_import if not each.domain] == [18]
    assert str(ROOT).encode() not in model.SerializeToString(), "no path of this machine"
    config = (folder.parent / "config.pbtxt").read_text()
    assert f'name: "{card.name}"' in config
    height_width = "97, 131" if name == "fixed" else "-1, -1"
    tensor = f'name: "frames" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ {height_width}, 3 ]'
    assert tensor in config
    for output, spec in card.outputs.items():
        assert f'name: "{output}" data_type: TYPE_FP32 dims: [ {", ".join(map(str, spec.shape[1:]))} ]' in config


def test_the_dynamic_graph_resizes_with_antialias(models: dict[str, Path]) -> None:
    nodes = onnx.load(models["vit"] / "model.onnx").graph.node
    (resize,) = (node for node in nodes if node.op_type == "Resize")
    assert {each.name: each.i for each in resize.attribute}["antialias"] == 1


def _flip(model: Path) -> None:
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 0xFF
    model.write_bytes(data)


def _cut(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink], ids=["flipped byte", "truncated", "no model"])
def test_a_damaged_model_is_refused(damage: Callable[[Path], object], copied: Callable[[str], Path]) -> None:
    folder = copied("fixed")
    damage(folder / "model.onnx")
    for opened in (verify_export, load_encoder):
        with pytest.raises(InputError, match=r"not the file its card.json describes|cannot read the model|no encoder"):
            opened(folder)


def test_the_card_of_another_export_is_refused(copied: Callable[[str], Path]) -> None:
    folder, other = copied("fixed"), copied("half")
    shutil.copy(other / "card.json", folder / "card.json")
    for opened in (verify_export, load_encoder):
        with pytest.raises(InputError, match=r"not the file its card\.json describes"):
            opened(folder)


def test_a_card_that_was_edited_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("fixed")
    card = EncoderCard.read(folder / "card.json")
    replace(card, digest="0" * 64).write(folder / "card.json")
    with pytest.raises(InputError, match="the card of another encoder"):
        verify_export(folder)
    replace(card, outputs={"pooled": card.outputs["pooled"]}).write(folder / "card.json")
    with pytest.raises(InputError, match=r"has the tensors .* its card.json says"):
        verify_export(folder)
    values = json.loads(card.to_json())
    (folder / "card.json").write_text(json.dumps({**values, "schema": "robossl.card/2"}))
    with pytest.raises(InputError, match=r"schema 'robossl.card/2'"):
        load_encoder(folder)


def test_bytes_that_are_no_model_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("fixed")
    card = EncoderCard.read(folder / "card.json")
    (folder / "model.onnx").write_bytes(b"no model")
    replace(card, model_sha256=file_sha256(folder / "model.onnx")).write(folder / "card.json")
    with pytest.raises(InputError, match="is not a valid ONNX model"):
        verify_export(folder)
    with pytest.raises(InputError, match="onnxruntime cannot open"):
        load_encoder(folder)


def test_an_export_that_fails_parity_leaves_nothing(tmp_path: Path) -> None:
    # the first convolution overflows half precision; batch-norm hides that from torch in fp32
    run = _save(tmp_path / "run", "test_resnet", gain=1e6)
    with pytest.raises(ParityError, match="is refused and nothing was written: pooled has centred cosine nan"):
        export(run, out=tmp_path / "models", precision="fp16")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
    assert ParityError.exit_code == 1


def test_what_cannot_be_exported_is_refused_at_once(
    runs: dict[str, Path], models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = models["fixed"].parent.parent
    small = [str(runs["small"]), "--out", str(out)]
    for arguments, message in [
        ([str(out)], "holds no encoder"),
        ([*small, "--name", "a/b"], "letters, digits"),
        ([*small, "--name", "fixed", "--version", "3"], "the next free one is 4"),
        ([*small, "--name", "fixed"], "has other inputs, outputs or batch size"),
        ([*small, "--outputs", "cls"], "unknown output of small 'cls'"),
        ([*small, "--name", "new", "--fixed-hw", "0", "0"], "fixed_hw must be 1 or more, got 0"),
        ([*small, "--name", "new", "--fixed-hw", "-5", "10"], "fixed_hw must be 1 or more, got -5"),
        ([*small, "--name", "new", "--max-batch", "0"], "max_batch must be 1 or more, got 0"),
        ([*small, "--name", "new", "--max-batch", "-1"], "max_batch must be 1 or more, got -1"),
    ]:
        assert main(["export", *arguments]) == 2
        captured = capsys.readouterr().err
        assert captured.startswith("robossl: ")
        assert captured.count("\n") == 1
        assert message in captured
    assert not any(each.name.startswith(".") for each in out.iterdir())


def test_a_new_version_is_the_newest(copied: Callable[[str], Path]) -> None:
    folder = copied("fixed")
    out, name = folder.parents[1], folder.parent.name
    assert choose_version(out, name=name, version=None) == 2
    assert choose_version(out, name="other", version=None) == 1
    shutil.copytree(folder, folder.with_name("10"))
    shutil.copytree(folder, folder.with_name("9"))
    assert choose_version(out, name=name, version=None) == 11
    assert choose_version(out, name=name, version=7) == 7
    assert find_model(folder.parent) == folder.with_name("10") / "model.onnx"
    for taken in (9, 0):
        with pytest.raises(InputError, match="the next free one is 11"):
            choose_version(out, name=name, version=taken)


def test_frames_of_a_store_are_compared_too(models: dict[str, Path], clip_store: Store) -> None:
    with_store, without = (verify_export(models[name]).parity for name in ("half", "vit"))
    assert with_store is not None
    assert without is not None
    height_width = tuple(int(size) for size in clip_store.frame_hw[0])
    assert height_width in with_store.frame_hw
    assert height_width not in without.frame_hw


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "vit_tiny_patch16_224", "vit_small_patch16_224"])
def test_full_size_models_at_224_pass_parity(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone, zero_init_last=False))
    save_encoder(encoder, tmp_path / "run" / "encoder", extra={})
    for precision in ("fp32", "fp16"):
        verify_export(export(tmp_path / "run", out=tmp_path / "models", precision=precision))


def test_centred_cosine_sees_what_raw_cosine_hides() -> None:
    frames = [natural_frames(4, (8, 8), seed=0)]
    generator = np.random.default_rng(0)
    features = 10 + 0.1 * generator.standard_normal((4, 64))
    noisy = features + 0.1 * generator.standard_normal((4, 64))
    raw = (features * noisy).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(noisy, axis=1)
    assert raw.min() > 0.9998
    with pytest.raises(ParityError, match="pooled has centred cosine 0"):
        check_parity(
            lambda _: {"pooled": features}, lambda _: {"pooled": noisy}, frames, gates=GATES["fp16"], provider="cpu"
        )


def test_a_collapsed_encoder_is_named() -> None:
    frames = [natural_frames(4, (8, 8), seed=0)]
    constant = {"pooled": np.ones((4, 64))}
    with pytest.raises(ParityError, match="pooled is the same for every frame"):
        check_parity(lambda _: constant, lambda _: constant, frames, gates=GATES["fp32"], provider="cpu")


def test_an_exported_model_runs_on_no_other_device(models: dict[str, Path]) -> None:
    for device in ("tpu", "cuda:1"):
        with pytest.raises(InputError, match=f"an exported model runs on cpu or cuda, got the device '{device}'"):
            load_encoder(models["fixed"], device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_provider_that_is_not_there_does_not_fall_back(
    models: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RobosslError, match=r"no working CUDAExecutionProvider|cannot open .* on cuda"):
        OnnxEncoder(models["fixed"], provider="cuda")
    assert capfd.readouterr().out == "", "what onnxruntime says about missing libraries is no output"


def test_a_fixed_batch_is_filled_up(runs: dict[str, Path], models: dict[str, Path], tmp_path: Path) -> None:
    card = EncoderCard.read(models["one"] / "card.json")
    assert card.input.tensor.shape == (2, 97, 131, 3)
    assert {spec.shape[0] for spec in card.outputs.values()} == {2}
    config = (models["one"].parent / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in config and "dims: [ 2, 97, 131, 3 ]" in config and "FORMAT" not in config
    frames = natural_frames(5, (97, 131), seed=0)
    wanted, got = load_encoder(models["fixed"])(frames), load_encoder(models["one"])(frames)
    for name in card.outputs:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="fixed_batch must be 1 or more"):
        export(runs["small"], out=tmp_path, fixed_batch=0)


def test_memory_bound_for_cuda_graphs_gives_the_same_outputs(models: dict[str, Path]) -> None:
    card = EncoderCard.read(models["one"] / "card.json")
    session, names = open_session(models["one"] / "model.onnx"), tuple(card.outputs)
    plain, bound = session_runner(session, card), session_runner(session, card, bind_to="cpu")
    batches = [natural_frames(num, (97, 131), seed=num) for num in (2, 1)]
    results = [bound(frames, names) for frames in batches]  # the second run must not change the first one's result
    for frames, result in zip(batches, results, strict=True):
        for name, values in plain(frames, names).items():
            np.testing.assert_array_equal(result[name], values)
