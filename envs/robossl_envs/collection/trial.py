"""Try the first reset and step of an environment in its own process, and turn a hang or crash into a one-line error."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.connection import Connection

from robossl.data.worker import start_worker
from robossl.errors import InputError
from robossl_envs.collection.crew import START_SECONDS, describe_exit, limit_threads
from robossl_envs.collection.environment import EnvDescription, describe, open_env
from robossl_envs.collection.settings import CollectionSettings


def describe_in_process(settings: CollectionSettings, *, hang_seconds: float) -> EnvDescription:
    """Open and describe an environment in another process, with a time limit.

    Raises:
        InputError: for the reasons that `open_env` and `describe` give, or because the process hung or died.
    """
    patience_seconds = max(hang_seconds, START_SECONDS)
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_description, args=(settings, theirs), daemon=True)
    with limit_threads():
        process.start()
    theirs.close()
    try:
        if not ours.poll(patience_seconds):
            raise InputError(_failure(settings, f"hung for {patience_seconds:g} s"))
        try:
            found: EnvDescription | InputError = ours.recv()
        except (EOFError, OSError):
            process.join()
            raise InputError(_failure(settings, describe_exit(process.exitcode))) from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(found, InputError):
        raise found
    return found


def _failure(settings: CollectionSettings, how: str) -> str:
    return f"{settings.env} {how} while it was opened, reset and stepped once; see robossl doctor {settings.env}"


def _send_description(settings: CollectionSettings, connection: Connection) -> None:
    """Run in the other process: describe the environment, and send back the description or the error."""
    start_worker()
    try:
        connection.send(describe(open_env(settings), settings))
    except InputError as error:
        connection.send(error)
