"""Run a function for many items on a Ray cluster (docs.ray.io), or on this machine if there is none."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from robossl.errors import InputError, ResourceError, RobosslError

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 5  # times that a task is run again after its worker or its machine died
CONNECT_SECONDS = 5.0
WAITING = 2  # tasks handed in for each CPU of the cluster


def map_on_ray(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Run a function for each item, one CPU each; yield each item and its result, in the order in which they end.

    The environment variable RAY_ADDRESS names the cluster; without it, Ray starts on this machine. A task whose worker
    or machine dies is run again on another. The package must be installed on all machines, and paths in items must be
    the same for all.

    Raises:
        InputError: Ray is not installed, or the function raised it.
        ResourceError: there is no cluster at the address, a task died too often, or the function raised it.
    """
    ray = _import_ray()
    own = not ray.is_initialized()
    if own:
        _start(ray)
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        waiting = iter(items)
        running: dict[Any, Item] = {}
        limit = WAITING * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while True:
            for item in itertools.islice(waiting, limit - len(running)):
                running[task.remote(item)] = item
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                yield running.pop(reference), _result(ray, reference)
    finally:
        if own:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError(f"--on ray needs the package ray ({error}): pip install 'robossl[ray]'") from error
    return ray


def _start(ray: Any) -> None:
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address and re.fullmatch(r"[^:/]+:\d+", address):  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=None if address else False
        )
    except (OSError, RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        raise ResourceError(
            f"no Ray cluster at {address or 'this machine'} ({said}); set RAY_ADDRESS=HOST:PORT"
        ) from error


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RobosslError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[0]
        raise ResourceError(f"a task on Ray died {RETRIES + 1} times ({said}); run the same command again") from error
