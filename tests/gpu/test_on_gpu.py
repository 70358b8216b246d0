"""What only a GPU can show: equal runs, features like the CPU's, ONNX on CUDA and TensorRT. Skipped without one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs_kit import assert_same_run, config_for

from robossl.encoders.cards import open_encoder
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.gpus import find_gpus, load_tensorrt
from robossl.encoders.inference import OnnxEncoder, TorchEncoder
from robossl.encoders.providers import GpuOptions
from robossl.exporting.export import export
from robossl.exporting.parity import GATES, check_parity, natural_frames
from robossl.methods import METHODS
from robossl.training.pretrain import pretrain

pytestmark = pytest.mark.gpu
HW = (64, 64)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a small ResNet of random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpu") / "run"
    save_encoder(
        build_encoder(EncoderConfig("test_resnet", input_hw=HW, zero_init_last=False)), folder / "encoder", extra={}
    )
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_a_straight_one(
    method: str, precision: str, clip_store_path: Path, tmp_path: Path
) -> None:
    config = config_for(method, clip_store_path, device="cuda", precision=precision)
    straight = pretrain(config, out=tmp_path / "straight").path
    halved = Path(shutil.copytree(straight, tmp_path / "halved"))
    shutil.rmtree(halved / "checkpoints" / "step_00000006")
    pretrain(config, out=halved, resume=True)
    assert_same_run(straight, halved, step=6)


def test_features_are_those_of_the_cpu(run: Path) -> None:
    frames = natural_frames(4, (80, 96), seed=0)
    on_cpu, on_gpu = (TorchEncoder(*open_encoder(run / "encoder"), device)(frames) for device in ("cpu", "cuda"))
    for name, values in on_cpu.items():
        np.testing.assert_allclose(on_gpu[name], values, rtol=1e-2, atol=1e-3 * float(np.abs(values).max()))


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_an_exported_model_follows_the_cpu(provider: str, batch: int | None, run: Path, tmp_path: Path) -> None:
    if provider == "tensorrt" and load_tensorrt() is None:
        pytest.skip("needs TensorRT 10")
    folder = export(run, out=tmp_path / "models", fixed_hw=HW, fixed_batch=batch)
    gpu = GpuOptions(cache=tmp_path / "engines", cuda_graph=batch is not None)
    encoder = OnnxEncoder(folder, provider=provider, gpu=gpu, batch_size=4)  # type: ignore[arg-type]
    cases = [natural_frames(num, HW, seed=num) for num in (1, 3, 5)]
    check_parity(OnnxEncoder(folder), encoder, cases, gates=GATES["fp32"], provider=provider)
    if provider == "tensorrt":
        assert list((tmp_path / "engines").glob("*/*/*.engine"))


def test_the_driver_says_which_gpu_it_is() -> None:
    gpus = find_gpus()
    assert len(gpus) >= 1 and torch.cuda.get_device_capability(0) == gpus[0].capability
