"""Count the CPUs that this process may use. Containers and schedulers often allow fewer than the machine has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def num_cpus() -> int:
    """Count the CPUs that this process may use: those in its affinity mask, or its cgroup's quota if that is smaller.

    A quota is rounded down. If a process has more threads than CPUs, the threads wait for each other.
    Do not use `os.cpu_count()`, because in a container it returns the number of CPUs of the whole machine.
    """
    # macOS and Windows have no affinity mask.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Return the smallest CPU quota of this process's cgroup and its parents, in CPUs; None if there is no quota.

    Args:
        root: Folder that contains `proc` and `sys`. Only tests pass a folder of their own.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            quotas += _read_quotas(root / "sys/fs/cgroup", group, _read_v2)
        elif "cpu" in controllers.split(","):
            quotas += _read_quotas(root / "sys/fs/cgroup" / controllers, group, _read_v1)
            quotas += _read_quotas(root / "sys/fs/cgroup/cpu", group, _read_v1)
    return min(quotas, default=None)


def _read_quotas(mount: Path, group: str, read: Callable[[Path], tuple[int, int]]) -> Iterator[float]:
    """Yield the quotas of a cgroup and of its parents, in CPUs; skip cgroups without a readable quota."""
    folder = mount / group.strip("/")
    for each in (folder, *folder.parents):
        try:
            quota_us, period_us = read(each)
        except (OSError, ValueError):
            # The file does not exist, or it says "max". Both mean that there is no quota.
            pass
        else:
            if quota_us > 0 and period_us > 0:  # in cgroup version 1, -1 means that there is no quota
                yield quota_us / period_us
        if each == mount:
            return


def _read_v2(folder: Path) -> tuple[int, int]:
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota), int(period)


def _read_v1(folder: Path) -> tuple[int, int]:
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())
