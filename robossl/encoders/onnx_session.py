"""Open an exported model file in onnxruntime, after checking that the file matches its card (description)."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robossl_client.card import CardError, EncoderCard

from robossl.common.cpus import num_cpus
from robossl.errors import InputError, reason

if TYPE_CHECKING:
    import onnxruntime

Provider = Literal["cpu", "cuda", "tensorrt"]

DIGEST_KEY = "robossl.digest"  # key in the model's metadata; its value must equal the digest of the card

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    # The provider tensorrt includes CUDA, because CUDA runs the nodes that TensorRT does not support.
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}


def read_card(path: Path) -> EncoderCard:
    """Read the card (description) of an exported encoder from its file.

    Raises:
        InputError: the card is missing or damaged, or its schema is not the one that this version reads.
    """
    try:
        return EncoderCard.read(path)
    except CardError as error:
        raise InputError(str(error)) from error


def check_model_file(model: Path, card: EncoderCard) -> None:
    """Check that a model file is, byte for byte, the one that its card (card.json) describes.

    Raises:
        InputError: the model is missing, truncated, damaged, or belongs to another card.
    """
    try:
        got = file_sha256(model)
    except OSError as error:
        raise InputError(f"cannot read the model {model} ({error.strerror}); export it again") from error
    if got != card.model_sha256:
        raise InputError(
            f"{model} is not the file its card.json describes (sha256 {got[:12]}, the card says "
            f"{str(card.model_sha256)[:12]}): damaged, or of another export; copy the version folder again"
        )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_session(
    model: Path, *, provider: Provider = "cpu", threads: int | None = None, optimise: bool = True
) -> onnxruntime.InferenceSession:
    """Open a model on one provider, without falling back to another.

    Args:
        model: The model file.
        provider: The provider (hardware and runtime) that runs the model.
        threads: Threads of one call; by default one for each CPU that this process may use.
        optimise: Whether onnxruntime optimises the graph. If False, it runs the nodes as exported, which gives
            reference outputs for the optimised graph.

    Raises:
        InputError: the provider is not available, or onnxruntime cannot run the file.
    """
    import onnxruntime

    wanted = _PROVIDERS[provider]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or num_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # log errors only
    # Threads must not spin while they wait, because that doubles the CPU time on a shared host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # onnxruntime prints about missing libraries on standard output, where nobody expects it.
        with contextlib.redirect_stdout(sys.stderr):
            if provider != "cpu":
                onnxruntime.preload_dlls()
            session = onnxruntime.InferenceSession(str(model), options, providers=list(wanted))
    except Exception as error:  # onnxruntime's errors share no base class
        raise InputError(f"onnxruntime cannot open {model} on {provider}: {reason(error)}; export it again") from error
    if wanted[0] not in session.get_providers():
        raise InputError(
            f"onnxruntime has no working {wanted[0]} here (it offers {', '.join(session.get_providers())}); "
            "pip install 'onnxruntime-gpu[cuda,cudnn]' on a machine with a GPU, or choose provider cpu"
        )
    return session
