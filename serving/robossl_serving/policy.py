"""Version policy: which versions of a model to load, from `version_policy` in the model's config.pbtxt.

The three kinds of policy (latest, all, specific) are those of Triton. Unlike in Triton, `latest` counts only versions
that pass their checks, so an older version takes the place of a broken version.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from robossl_client._proto import inference_pb2 as pb

from robossl.errors import InputError
from robossl.exporting.triton_layout import read_config

_log = logging.getLogger("robossl.serving")
# The default policy: load only the newest version.
LATEST = pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=1))


@dataclass(frozen=True, slots=True)
class VersionChoice:
    """The versions to try in order, and how many of them (`num`) to load."""

    versions: tuple[int, ...]
    num: int
    missing: tuple[int, ...] = ()  # versions that the version policy names but that are not on disk


def read_policy(model: Path) -> pb.ModelVersionPolicy:
    """Read the version policy from a model's folder; return `LATEST` if config.pbtxt sets none.

    Raises:
        InputError: config.pbtxt cannot be read, or its policy would load no version.
    """
    config = model / "config.pbtxt"
    read = read_config(config) if config.is_file() else pb.ModelConfig()
    if not read.HasField("version_policy"):
        return LATEST
    policy = read.version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind is None:
        raise InputError(f"{config} has an unknown version_policy; choose latest, all or specific")
    if kind == "latest" and not policy.latest.num_versions:
        raise InputError(f"{config} loads the latest 0 versions; set num_versions to 1 or more")
    if kind == "specific" and not policy.specific.versions:
        raise InputError(f"{config} names no version in version_policy; list at least one: specific {{ versions: 1 }}")
    return policy


def choose(policy: pb.ModelVersionPolicy, on_disk: Collection[int]) -> VersionChoice:
    """Choose the versions to load by a version policy, newest first.

    >>> choose(LATEST, [1, 2, 3])
    VersionChoice(versions=(3, 2, 1), num=1, missing=())
    >>> choose(pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[1, 7])), [1, 2, 3])
    VersionChoice(versions=(1,), num=1, missing=(7,))
    """
    newest_first = tuple(sorted(on_disk, reverse=True))
    match policy.WhichOneof("policy_choice"):
        case "latest":
            return VersionChoice(newest_first, policy.latest.num_versions)
        case "specific":
            named = set(policy.specific.versions)
            found = tuple(version for version in newest_first if version in named)
            return VersionChoice(found, len(found), tuple(sorted(named.difference(on_disk))))
        case _:
            return VersionChoice(newest_first, len(newest_first))


class VersionChooser:
    """Chooses which versions of each model are served; logs each unusable version policy only once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unusable: dict[str, str] = {}  # the error that was logged last for each model, by model name

    def choose(
        self, name: str, on_disk: Collection[int], version: int | None
    ) -> tuple[pb.ModelVersionPolicy, VersionChoice]:
        """Return the model's version policy, and the versions to load: the policy's choice, or `version` if given.

        Raises:
            InputError: the policy cannot be used.
        """
        try:
            policy = read_policy(self._root / name)
            choice = choose(policy, on_disk) if version is None else VersionChoice((version,), 1)
            if not choice.versions:
                missing = ", ".join(map(str, choice.missing))
                raise InputError(
                    f"{self._root / name / 'config.pbtxt'} names only versions {missing}, and none of them is on disk; "
                    "correct its version_policy"
                )
        except InputError as error:
            if self._unusable.get(name) != str(error):
                _log.error("refused", extra={"model": name, "reason": str(error)})
            self._unusable[name] = str(error)
            raise
        self._unusable.pop(name, None)
        return policy, choice
