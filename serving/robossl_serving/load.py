"""The `load` command: tell a running server to load a model, or to roll it back to one of its versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from robossl_client.channel import Tls, metadata, open_channel
from robossl_client.errors import RequestError, ServingError, UnavailableError, UnknownModelError, from_grpc
from robossl_client.handshake import explain
from robossl_client.wire import CALLS, path, put_values

from robossl.encoders.credentials import read_credentials
from robossl.errors import InputError, ResourceError

_LOAD_S = 600.0  # time limit; long, because a load checks and measures the encoder, and TensorRT builds an engine


def load(
    target: str,
    model: str,
    *,
    version: int | None = None,
    token: Path | None = None,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
) -> str:
    """Tell a running server to load a model; the old version serves until the new one has passed its checks.

    Args:
        target: host:port of the server.
        model: Name of the model, which is also its folder in the repository.
        version: The version to make current, for example an older version to roll back; default: the version that
            version_policy in the model's config.pbtxt chooses.
        token: File with the admin token, or with the server's token if there is no admin token.
        ca: PEM file of the authority that signed the server's certificate.
        cert: PEM file of your own certificate, for a server that was started with --client-ca.
        key: PEM file with the key of --cert.

    Raises:
        InputError: the model or version does not exist, or an argument cannot be used.
        ResourceError: the server cannot be reached, denies access, or the version failed its checks.
    """
    try:
        versions = _load(target, model, version, **read_credentials(token, ca, cert=cert, key=key))
    except (RequestError, UnknownModelError) as error:
        raise InputError(f"{target}: {error}") from error
    except ServingError as error:
        raise ResourceError(f"{target}: {error}") from error
    loaded = ", ".join(sorted(versions, key=int))
    said = f"{model} version {versions[-1]} is current at {target}; loaded versions: {loaded}"
    if version is None:
        return said
    kept = f"version_policy: {{ specific {{ versions: [ {version} ] }} }}"
    return (
        f"{said}\nrobots that pinned another version keep it until they reconnect or the server restarts without it\n"
        f"version {version} stays current until the model is loaded without --version or the server restarts; to "
        f"keep it after that, write {kept} into its config.pbtxt; later exports are then loaded only if they are named "
        "there too, and no other version takes over if this one is damaged"
    )


def _load(target: str, model: str, version: int | None, *, token: str | None, tls: Tls | None) -> list[str]:
    """Load the model; return the loaded versions, the current one last."""
    load = CALLS["RepositoryModelLoad"].request(model_name=model)
    put_values(load.parameters, {"version": version})
    about = CALLS["ModelMetadata"].request(name=model)
    with open_channel(target, tls) as channel:
        try:
            _ask(channel, "RepositoryModelLoad", load, token)
            return list(_ask(channel, "ModelMetadata", about, token).versions)
        except grpc.RpcError as error:
            failure = from_grpc(error)
            raise explain(failure, tls) if isinstance(failure, UnavailableError) else failure from None


def _ask(channel: Any, name: str, request: Any, token: str | None) -> Any:
    call = CALLS[name]
    method = channel.unary_unary(path(name), call.encode_request, call.decode_response)
    return method(request, timeout=_LOAD_S, metadata=metadata(token))
