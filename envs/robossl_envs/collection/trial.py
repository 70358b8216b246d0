"""A trial: an environment's first reset and step in a process of its own, where a hang or a crash ends in one line."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.connection import Connection

from robossl.data.worker import start_worker
from robossl.errors import InputError
from robossl_envs.collection.crew import START_SECONDS, ending, one_thread_each
from robossl_envs.collection.environment import Described, describe, open_env
from robossl_envs.collection.settings import Settings


def described_apart(settings: Settings, *, hang_seconds: float) -> Described:
    """Open and describe an environment, watched as the workers are.

    Raises:
        InputError: as `open_env` and `describe`; it hung, or it ended its process.
    """
    patience_seconds = max(hang_seconds, START_SECONDS)
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_try, args=(settings, theirs), daemon=True)
    with one_thread_each():
        process.start()
    theirs.close()
    try:
        if not ours.poll(patience_seconds):
            raise InputError(_fell(settings, f"hung for {patience_seconds:g} s"))
        try:
            found: Described | InputError = ours.recv()
        except (EOFError, OSError):
            process.join()
            raise InputError(_fell(settings, ending(process.exitcode))) from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(found, InputError):
        raise found
    return found


def _fell(settings: Settings, how: str) -> str:
    return f"{settings.env} {how} while it was opened, reset and stepped once; see robossl doctor {settings.env}"


def _try(settings: Settings, connection: Connection) -> None:
    """The process."""
    start_worker()
    try:
        connection.send(describe(open_env(settings), settings))
    except InputError as error:
        connection.send(error)
