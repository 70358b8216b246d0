"""Choose the onnxruntime provider (CPU, CUDA or TensorRT). If a user names a provider, no other one is used."""

from __future__ import annotations

from typing import Literal

from robossl.encoders.gpus import find_gpus
from robossl.encoders.providers import Provider
from robossl.errors import InputError

ProviderChoice = Literal["auto", "cpu", "cuda", "tensorrt"]


def choose_provider(choice: ProviderChoice) -> Provider:
    """Return the provider that runs the encoders; `auto` means CUDA if there is a device, otherwise the CPU.

    `auto` never chooses TensorRT, because TensorRT takes minutes to build its engines, and its results differ slightly
    by rounding.

    Raises:
        InputError: a provider that needs a CUDA device is given by name, and there is no device.
    """
    has_device = choice != "cpu" and bool(find_gpus())
    if choice == "auto":
        return "cuda" if has_device else "cpu"
    if choice != "cpu" and not has_device:
        raise InputError(f"--provider {choice} needs a CUDA device, and the driver reports none; pass --provider cpu")
    return choice
