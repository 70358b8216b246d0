"""Session: an exported model file, checked against its card and opened in onnxruntime."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robossl_client.card import CardError, EncoderCard

from robossl.cpus import num_cpus
from robossl.errors import InputError, reason

if TYPE_CHECKING:
    import onnxruntime

Provider = Literal["cpu", "cuda", "tensorrt"]

DIGEST_KEY = "robossl.digest"  # in the model's metadata: a card of other weights shows

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),  # CUDA runs what TensorRT cannot
}


def read_card(path: Path) -> EncoderCard:
    """Read a card file.

    Raises:
        InputError: it is missing, damaged or of another schema.
    """
    try:
        return EncoderCard.read(path)
    except CardError as error:
        raise InputError(str(error)) from error


def check_model_file(model: Path, card: EncoderCard) -> None:
    """Check that a model file is byte for byte the one its card describes.

    Raises:
        InputError: it is missing, truncated, damaged, or belongs to another card.
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
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_session(
    model: Path, *, provider: Provider = "cpu", threads: int | None = None, optimise: bool = True
) -> onnxruntime.InferenceSession:
    """Open a model on one provider, without falling back; `threads` of None is one a CPU that this process may use.

    Without `optimise` the graph is run node by node as it was exported, a reference for what optimising does.

    Raises:
        InputError: the provider is not there, or the file is not a model that onnxruntime can run.
    """
    import onnxruntime

    wanted = _PROVIDERS[provider]
    if provider != "cpu":
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or num_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it doubles CPU time on a shared host
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=list(wanted))
    except Exception as error:  # onnxruntime has a dozen, of no class of its own
        raise InputError(f"onnxruntime cannot open {model} on {provider}: {reason(error)}; export it again") from error
    if wanted[0] not in session.get_providers():
        raise InputError(
            f"onnxruntime has no working {wanted[0]} here (it offers {', '.join(session.get_providers())}); "
            "pip install 'onnxruntime-gpu[cuda,cudnn]' on a machine with a GPU, or choose provider cpu"
        )
    return session
