"""`robossl.load_policy`: open an exported policy, from a file or on a server, as a function from frames to actions."""

from __future__ import annotations

import os
from pathlib import Path

from jaxtyping import Float32, UInt8
from numpy import ndarray
from robossl_client.card import ACTION, EncoderCard

from robossl.common.paths import StrPath
from robossl.encoders.find import find_encoder, find_model
from robossl.encoders.inference import OnnxEncoder
from robossl.encoders.onnx_session import read_card
from robossl.encoders.served_encoder import ServedEncoder
from robossl.errors import InputError


class LoadedPolicy:
    """A policy and its encoder as one function.

    Attributes:
        card: The card (description) of the model; `card.policy` says what the state and the action mean.
    """

    def __init__(self, model: OnnxEncoder | ServedEncoder) -> None:
        self.card: EncoderCard = model.card
        self._model = model

    def __repr__(self) -> str:
        return f"LoadedPolicy({self._model!r})"

    def __call__(
        self, frames: UInt8[ndarray, "b h w 3"], state: Float32[ndarray, "b v"] | None = None
    ) -> Float32[ndarray, "b a"]:
        """Return an action for each frame; -1 is the lowest and 1 the highest, and values beyond are to be clipped.

        Args:
            frames: RGB frames of any size.
            state: The robot's own state at each frame, if `card.policy.state` says so.

        Raises:
            InputError: the frames or the state do not fit, or a server replaced the policy.
            ResourceError: a server does not answer.
        """
        return self._model(frames, state)[ACTION]


def load_policy(
    source: StrPath, *, device: str = "cpu", token: StrPath | None = None, ca: StrPath | None = None
) -> LoadedPolicy:
    """Open a policy that `export_policy` wrote, as a function from frames and state to actions.

    Args:
        source: An exported model folder (its newest version), a model.onnx with its card, or
            `grpc://HOST:PORT/MODEL` for a model on a server.
        device: cpu or cuda. A server ignores this and uses its own device.
        token: File with the token of a server.
        ca: PEM file of the authority that signed the certificate of a server. None turns encryption off.

    Raises:
        InputError: there is no such model, it has no policy, or a file does not match its card.
        ResourceError: a server does not answer.

    Example:
        >>> import robossl
        >>> robossl.load_policy("runs/tiny")
        Traceback (most recent call last):
        robossl.errors.InputError: runs/tiny has no policy; pass a model of `robossl export-policy`
        >>> policy = robossl.load_policy("models/mine-Reach-v0")  # doctest: +SKIP
        >>> policy(frames, state)  # doctest: +SKIP
    """
    text = os.fspath(source)
    if text.startswith("grpc://"):
        return LoadedPolicy(ServedEncoder(text, lambda card: _action_of(card, text), token=token, ca=ca))
    if token or ca:
        raise InputError(f"token and ca are for a server (grpc://HOST:PORT/MODEL), not for {text}; leave them out")
    if device not in ("cpu", "cuda"):
        raise InputError(f"an exported model runs on cpu or cuda, got the device {device!r}")
    if find_encoder(Path(text)) is not None:
        raise _no_policy_error(text)
    path = find_model(Path(text))
    _action_of(read_card(path.with_name("card.json")), text)
    return LoadedPolicy(OnnxEncoder(path, provider="cuda" if device == "cuda" else "cpu", outputs=(ACTION,)))


def _action_of(card: EncoderCard, source: str) -> tuple[str]:
    if card.policy is None:
        raise _no_policy_error(source)
    return (ACTION,)


def _no_policy_error(source: str) -> InputError:
    return InputError(f"{source} has no policy; pass a model of `robossl export-policy`")
