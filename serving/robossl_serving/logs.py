"""Log one JSON object per line on standard error, also for lines that Python or native libraries write.

onnxruntime and grpc write to file descriptor 2 directly. So descriptor 2 becomes a pipe, and a separate program
(`relay.py`) turns each line from the pipe into a JSON object.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from robossl_serving import relay as relay_program
from robossl_serving.relay import format_time

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_log = logging.getLogger("robossl.serving")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        row = {"time": format_time(record.created), "level": record.levelname.lower(), "event": record.getMessage()}
        row |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.name != _log.name:
            row["logger"] = record.name
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)


class _Handler(logging.Handler):
    """Writes lines to a descriptor; a line that cannot be written (full disk) is lost, and the server goes on."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.setFormatter(_Json())

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            line = f"{self.format(record)}\n".encode()
        except Exception:  # for example, the arguments of a library's record do not fit its format string
            self.handleError(record)
            return
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line)


@contextlib.contextmanager
def json_log() -> Iterator[None]:
    """Write the log, and everything else that goes to standard error, as JSON until the block ends."""
    if sys.stderr is None:  # the parent process has closed standard error
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    handler = _Handler(kept)
    root = logging.getLogger()
    level, hook = _log.level, threading.excepthook
    root.addHandler(handler)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread
    _log.setLevel(logging.INFO)
    try:
        with _wrapped_lines(kept), _crash_dump(kept):
            yield
    finally:
        _log.setLevel(level)
        threading.excepthook = hook
        logging.captureWarnings(False)
        root.removeHandler(handler)
        os.close(kept)


@contextlib.contextmanager
def _wrapped_lines(kept: int) -> Iterator[None]:
    """Turn lines on descriptor 2 (standard error) into log events; do nothing if the relay program cannot start."""
    source, sink = os.pipe()
    try:
        relay = subprocess.Popen(
            [sys.executable, "-I", "-S", relay_program.__file__],
            stdin=source,
            stdout=kept,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        os.close(sink)
        yield
        return
    finally:
        os.close(source)
    os.set_blocking(sink, False)  # if the log's reader stops reading, the server must not block
    os.dup2(sink, 2)
    os.close(sink)
    try:
        yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(kept, 2)  # this closes the pipe, which ends the relay program
        with contextlib.suppress(subprocess.TimeoutExpired):
            relay.wait(timeout=5)


@contextlib.contextmanager
def _crash_dump(kept: int) -> Iterator[None]:
    """Write a crash's stack to descriptor `kept`, not to the relay, which would log each line as an event."""
    if faulthandler.is_enabled():
        yield
        return
    faulthandler.enable(kept)
    try:
        yield
    finally:
        faulthandler.disable()


def _log_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is None or issubclass(failed.exc_type, SystemExit):
        return
    about = {"in_thread": failed.thread.name if failed.thread else None}
    info = (failed.exc_type, failed.exc_value, failed.exc_traceback)
    _log.error("a thread failed", exc_info=info, extra=about)
